//! Kafka's errors in the words of the seam: what the caller does about them.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::log::LogError;

/// Whether trying again cannot help.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::MessageSizeTooLarge
            | Code::InvalidMessage
            | Code::InvalidTopic
            | Code::InvalidRecord
            | Code::PolicyViolation
            | Code::UnsupportedVersion
            | Code::UnsupportedCompressionType
            | Code::UnsupportedForMessageFormat
    )
}

/// An error about `what`, from the cluster at `address`.
pub(super) fn explain(address: &str, what: &str, error: &KafkaError) -> LogError {
    let detail = format!("{what}: {error}");
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            LogError::Refused(format!("{address}: {detail}; `khala topics apply` makes the topics"))
        }
        Some(code) if is_refusal(code) => LogError::Refused(format!("{address}: {detail}")),
        Some(_) => LogError::Unreachable {
            address: address.to_owned(),
            detail,
        },
        None => match error {
            KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => LogError::Refused(detail),
            _ => LogError::Unreachable {
                address: address.to_owned(),
                detail,
            },
        },
    }
}
