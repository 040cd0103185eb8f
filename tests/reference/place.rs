//! Kafka's murmur2 (as the Java client has it) and CRC-32C (RFC 3720), bit by bit.

/// The partition of a key.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// `org.apache.kafka.common.utils.Utils.murmur2`.
pub fn murmur2(data: &[u8]) -> u32 {
    let m: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut i = 0;
    while data.len() - i >= 4 {
        let mut k = u32::from(data[i])
            + (u32::from(data[i + 1]) << 8)
            + (u32::from(data[i + 2]) << 16)
            + (u32::from(data[i + 3]) << 24);
        k = k.wrapping_mul(m);
        k ^= k >> 24;
        k = k.wrapping_mul(m);
        h = h.wrapping_mul(m);
        h ^= k;
        i += 4;
    }
    let rest = data.len() - i;
    if rest >= 3 {
        h ^= u32::from(data[i + 2]) << 16;
    }
    if rest >= 2 {
        h ^= u32::from(data[i + 1]) << 8;
    }
    if rest >= 1 {
        h ^= u32::from(data[i]);
        h = h.wrapping_mul(m);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(m);
    h ^ (h >> 15)
}

/// CRC-32C over all parts, one after the other.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}
