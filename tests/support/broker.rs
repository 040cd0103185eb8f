//! A Kafka 4.3.0 broker in `KRaft` combined mode, from the jars that `scripts/install-test-servers` brings.
//! Out: an address that answers metadata requests. Topics are made and changed with Kafka's admin calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::guarded::{Guarded, free_port, temp_dir};
use super::proxy::Proxy;
use super::wait::{eventually, seconds};

/// One broker.
pub struct Kafka {
    port: u16,
    dir: tempfile::TempDir,
    process: Option<Guarded>,
}

impl Kafka {
    /// Formats a directory and starts; returns when metadata answers.
    pub fn start() -> Self {
        let (port, controller) = (free_port(), free_port());
        Self::start_node(
            port,
            &format!(
                "process.roles=broker,controller\nnode.id=1\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n{}",
                replicated(1)
            ),
            &["--standalone"],
        )
    }

    /// A broker that tells clients of a second listener to come by a proxy. Out: it, and the proxy.
    pub fn start_behind_a_proxy() -> (Self, Proxy) {
        let (port, controller, behind) = (free_port(), free_port(), free_port());
        let proxy = Proxy::to(&format!("127.0.0.1:{behind}"));
        let own = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
        let kafka = Self::start_node(
            port,
            &format!(
                "process.roles=broker,controller\nnode.id=1\nlisteners={own},BEHIND://127.0.0.1:{behind}\n\
                 advertised.listeners={own},BEHIND://{}\n\
                 controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n{}",
                proxy.address(),
                replicated(1)
            ),
            &["--standalone"],
        );
        (kafka, proxy)
    }

    /// A broker that asks for a user on a second listener (TLS, SCRAM), and lets users do only what they were given.
    /// `pem`: its key and certificate. Users `khala` and `other`, each with the password `secret`. Out: it, and that
    /// listener's address.
    pub fn start_guarded(pem: &Path) -> (Self, String) {
        let (port, controller, guarded) = (free_port(), free_port(), free_port());
        let listeners =
            format!("PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{guarded},CONTROLLER://127.0.0.1:{controller}");
        let kafka = Self::start_node(
            port,
            &format!(
                "process.roles=broker,controller\nnode.id=1\nlisteners={listeners}\nadvertised.listeners={listeners}\n\
                 controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
                 authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                 super.users=User:ANONYMOUS\nsasl.enabled.mechanisms=SCRAM-SHA-512\n\
                 listener.name.sasl.ssl.keystore.type=PEM\nlistener.name.sasl.ssl.keystore.location={}\n\
                 listener.name.sasl.scram-sha-512.sasl.jaas.config=\
                 org.apache.kafka.common.security.scram.ScramLoginModule required;\n{}",
                pem.display(),
                replicated(1)
            ),
            &[
                "--standalone",
                "--add-scram",
                "SCRAM-SHA-512=[name=khala,password=secret]",
                "--add-scram",
                "SCRAM-SHA-512=[name=other,password=secret]",
            ],
        );
        (kafka, format!("127.0.0.1:{guarded}"))
    }

    /// Three brokers; the first one is also the controller. What is made without a word about it has three replicas.
    pub fn start_three() -> [Self; 3] {
        let controller = free_port();
        let common = format!(
            "controller.quorum.bootstrap.servers=127.0.0.1:{controller}\nmin.insync.replicas=2\n\
             unclean.leader.election.interval.ms=500\nbroker.session.timeout.ms=3000\n\
             broker.heartbeat.interval.ms=500\n{}",
            replicated(3)
        );
        [1, 2, 3].map(|id| {
            let port = free_port();
            let listener = format!("PLAINTEXT://127.0.0.1:{port}");
            let (roles, listeners, quorum) = if id == 1 {
                let both = format!("{listener},CONTROLLER://127.0.0.1:{controller}");
                ("broker,controller", both, &["--standalone"][..])
            } else {
                ("broker", listener, &[][..])
            };
            let settings = format!(
                "process.roles={roles}\nnode.id={id}\nlisteners={listeners}\nadvertised.listeners={listeners}\n{common}"
            );
            Self::start_node(port, &settings, quorum)
        })
    }

    fn start_node(port: u16, settings: &str, quorum: &[&str]) -> Self {
        let dir = temp_dir("kafka");
        let properties = format!(
            "{settings}\nlog.dirs={}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,BEHIND:PLAINTEXT,SASL:SASL_SSL\n\
             offsets.topic.num.partitions=2\n\
             group.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=1000\n\
             auto.create.topics.enable=false\ncontrolled.shutdown.enable=false\n",
            dir.path().join("data").display()
        );
        fs::write(dir.path().join("server.properties"), properties).expect("a file in our directory");
        let mut kafka = Self {
            port,
            dir,
            process: None,
        };
        kafka.format(quorum);
        kafka.start_again();
        kafka
    }

    fn format(&self, quorum: &[&str]) {
        let properties = self.dir.path().join("server.properties");
        let output = Command::new("java")
            .args([
                "-Xmx128m",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                &classpath(),
                "kafka.tools.StorageTool",
            ])
            .arg("format")
            .args(quorum)
            .args(["-t", "4L6g3nShT-eMCtK--X86sw", "-c"])
            .arg(&properties)
            .output()
            .expect("java runs (scripts/install-test-servers brings it)");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "StorageTool: {stderr}");
    }

    /// Starts on the same port and directory.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the broker runs already");
        let properties = self.dir.path().join("server.properties").display().to_string();
        let args: Vec<String> = [
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-cp",
            &classpath(),
            "kafka.Kafka",
            &properties,
        ]
        .map(str::to_owned)
        .to_vec();
        let remove = ("REMOVE_AT_END".to_owned(), self.dir.path().display().to_string());
        self.process = Some(Guarded::start(
            &self.dir.path().join("broker"),
            "java",
            &args,
            &[remove],
        ));
        let client: BaseConsumer = self.config().create().expect("a legal configuration");
        eventually("the broker answers", seconds(60), || {
            let process = self.process.as_mut().expect("set above");
            assert!(process.ended().is_none(), "the broker ended: {}", process.stderr());
            client.fetch_metadata(None, Duration::from_secs(2)).map(|_| ())
        });
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) {
        self.end("TERM");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    fn end(&mut self, signal: &str) {
        let mut process = self.process.take().expect("the broker runs");
        process.signal(signal);
        process.wait();
    }

    /// Copies the data of a broker that is stopped: a backup.
    pub fn back_up(&self) {
        self.copy("data", "backup");
    }

    /// Puts the backup in the place of the data of a broker that is stopped: what came after it is lost.
    pub fn restore(&self) {
        self.copy("backup", "data");
    }

    fn copy(&self, from: &str, to: &str) {
        assert!(self.process.is_none(), "the broker runs");
        let (from, to) = (self.dir.path().join(from), self.dir.path().join(to));
        let _ = fs::remove_dir_all(&to);
        let status = Command::new("cp")
            .arg("-a")
            .args([&from, &to])
            .status()
            .expect("cp runs");
        assert!(status.success(), "cp -a {} {}", from.display(), to.display());
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A client configuration with nothing but the address.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config.set("log_level", "0");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("a legal configuration")
    }

    /// Makes a topic that takes values up to 2 MiB; returns when each partition has a leader.
    pub fn create_topic(&self, topic: &str, partitions: u32) {
        self.create(
            NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(1)),
            partitions,
        );
    }

    /// The same, whose records stay however old they are.
    pub fn create_lasting_topic(&self, topic: &str, partitions: u32) {
        let new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        self.create(new, partitions);
    }

    /// The same on three brokers, where the second leads and the third follows; a follower that lacks records may
    /// become the leader, and one in-sync replica is enough for an acknowledgement.
    pub fn create_careless_topic(&self, topic: &str, partitions: u32) {
        let replicas = vec![&[2, 3][..]; partitions as usize];
        let new = NewTopic::new(topic, partitions as i32, TopicReplication::Variable(&replicas))
            .set("min.insync.replicas", "1")
            .set("unclean.leader.election.enable", "true");
        self.create(new, partitions);
    }

    /// The same with three replicas, two of which acknowledge.
    pub fn create_replicated_topic(&self, topic: &str, partitions: u32) {
        let new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(3)).set("min.insync.replicas", "2");
        self.create(new, partitions);
    }

    fn create(&self, new: NewTopic<'_>, partitions: u32) {
        let topic = new.name;
        let new = new.set("max.message.bytes", "2097152");
        // A topic's deletion goes on after it was answered: its name may be taken for a while.
        eventually("the topic is made", seconds(60), || {
            let done = block_on(self.admin().create_topics([&new], &options()));
            let results = done.map_err(|e| e.to_string())?;
            results
                .into_iter()
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| format!("{e:?}"))
        });
        self.wait_for_leaders(topic, partitions);
    }

    /// Deletes a topic; returns when metadata do not know it any more.
    pub fn delete_topic(&self, topic: &str) {
        let done = block_on(self.admin().delete_topics(&[topic], &options())).expect("the broker answers");
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        let client: BaseConsumer = self.config().create().expect("a legal configuration");
        eventually("the topic is gone", seconds(60), || {
            let metadata = client.fetch_metadata(None, seconds(5)).map_err(|e| e.to_string())?;
            let there = metadata.topics().iter().any(|known| known.name() == topic);
            if there { Err("still there".to_owned()) } else { Ok(()) }
        });
    }

    /// Raises the number of partitions.
    pub fn add_partitions(&self, topic: &str, partitions: u32) {
        let new = NewPartitions::new(topic, partitions as usize);
        let done = block_on(self.admin().create_partitions([&new], &options())).expect("the broker answers");
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        self.wait_for_leaders(topic, partitions);
    }

    /// The largest record batch that a topic takes.
    pub fn set_max_message_bytes(&self, topic: &str, bytes: u32) {
        let bytes = bytes.to_string();
        let new = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &bytes);
        let done = block_on(self.admin().alter_configs([&new], &options())).expect("the broker answers");
        assert!(done.iter().all(Result::is_ok), "{done:?}");
    }

    /// Deletes the records below `before` (offset of the first that stays), as retention does.
    pub fn delete_records(&self, topic: &str, partition: u32, before: u64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition as i32, Offset::Offset(before as i64))
            .expect("a legal offset");
        block_on(self.admin().delete_records(&list, &options())).expect("the records are deleted");
    }

    fn wait_for_leaders(&self, topic: &str, partitions: u32) {
        let client: BaseConsumer = self.config().create().expect("a legal configuration");
        eventually("each partition has a leader", seconds(60), || {
            let metadata = client
                .fetch_metadata(Some(topic), seconds(5))
                .map_err(|e| e.to_string())?;
            let found = metadata
                .topics()
                .iter()
                .flat_map(rdkafka::metadata::MetadataTopic::partitions);
            let led = found.filter(|p| p.error().is_none() && p.leader() >= 0).count();
            if led == partitions as usize {
                Ok(())
            } else {
                Err(format!("{led} of {partitions}"))
            }
        });
    }
}

/// Settings of internal topics.
fn replicated(replicas: u8) -> String {
    format!(
        "default.replication.factor={replicas}\n\
         offsets.topic.replication.factor={replicas}\n\
         transaction.state.log.replication.factor={replicas}\ntransaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor={replicas}\nshare.coordinator.state.topic.min.isr=1\n"
    )
}

/// Where the jars are; says how to get them if they are not.
fn classpath() -> String {
    let dir = std::env::var("KHALA_KAFKA_DIR").unwrap_or_else(|_| "/var/tmp/khala-kafka-4.3.0".to_owned());
    assert!(
        PathBuf::from(&dir).is_dir(),
        "no Kafka in {dir}: run scripts/install-test-servers (KHALA_KAFKA_DIR names another place)"
    );
    format!("{dir}/*")
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(seconds(60)))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}
