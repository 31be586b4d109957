//! Aggregates, written byte by byte from the published format with nothing of the product: whole ones of many forms, and
//! ones that are damaged in each way. The same in every run.

use md5::{Digest, Md5};

/// Partition key, explicit hash key and data of a record in an aggregate.
pub type Part = (String, Option<String>, Vec<u8>);

/// What must become of an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its records are read.
    Opened,
    /// It is no aggregate any more, and is read as it is.
    Plain,
    /// It is in the dead letters, with a reason that says this.
    Refused(&'static str),
}

#[derive(Debug, Clone)]
pub struct Blob {
    pub data: Vec<u8>,
    pub fate: Fate,
    pub parts: Vec<Part>,
}

/// How many kinds of damage there are.
const DAMAGES: usize = 9;

/// `count` different aggregates; every second one is damaged, in one way after the other.
pub fn blobs(seed: u64, count: usize) -> Vec<Blob> {
    let mut random = Random(seed);
    (0..count).map(|i| if i % 2 == 0 { whole(&mut random) } else { damaged(&mut random, i / 2 % DAMAGES) }).collect()
}

fn whole(random: &mut Random) -> Blob {
    let (message, parts) = message(random);
    Blob { data: framed(&message), fate: Fate::Opened, parts }
}

fn damaged(random: &mut Random, damage: usize) -> Blob {
    const KEY: Fate = Fate::Refused("names a key that is not there");
    let (mut body, parts) = message(random);
    let len = 4 + body.len() + 16;
    let mut data = framed(&body);
    let fate = match damage {
        0 => {
            data[random.below(4)] ^= 1 << random.below(8);
            Fate::Plain
        }
        1 => {
            data[len - 1 - random.below(16)] ^= 1 << random.below(8);
            Fate::Refused("its MD5 is of other bytes")
        }
        2 => {
            data[4 + random.below(body.len())] ^= 1 << random.below(8);
            Fate::Refused("its MD5 is of other bytes")
        }
        3 => {
            data.truncate(11 + random.below(9));
            Fate::Refused("it is cut off")
        }
        4 => {
            data.truncate(20 + random.below(body.len()));
            Fate::Refused("its MD5 is of other bytes")
        }
        5 => {
            // A length that goes beyond the end, or a type that there is not.
            body.extend(if random.below(2) == 0 { [0x1A, 0xFF, 0x7F] } else { [0x0F, 0x00, 0x07] });
            data = framed(&body);
            Fate::Refused("damaged aggregate: ")
        }
        n => {
            let (key, hash, value) = match n {
                6 => (Some(1_000 + random.next() % 1_000), None, Some(random.bytes(9))),
                7 => (Some(0), Some(1_000 + random.next() % 1_000), Some(random.bytes(9))),
                _ if random.below(2) == 0 => (Some(0), None, None),
                _ => (None, None, Some(random.bytes(9))),
            };
            field(&mut body, 3, &record(key, hash, value.as_deref(), 0));
            data = framed(&body);
            KEY
        }
    };
    Blob { data, fate, parts }
}

/// The protobuf of an aggregate and what is in it: none to 60 records, with keys that several share, that none has and
/// that are there twice; with tags; and with the tables of keys before or after the records.
fn message(random: &mut Random) -> (Vec<u8>, Vec<Part>) {
    let keys: Vec<String> = (0..1 + random.below(6)).map(|_| random.key()).collect();
    let hashes: Vec<String> = (0..random.below(4)).map(|_| random.hash_key()).collect();
    let (mut records, mut parts) = (Vec::new(), Vec::new());
    for _ in 0..[0, 1, 2, 7, 60][random.below(5)] {
        let (key, hash) = (random.below(keys.len()), random.below(2 * hashes.len().max(1)));
        let hash = (hash < hashes.len()).then_some(hash);
        let len = [0, 1, 30, 1_000, 5_000][random.below(5)];
        let (data, tags) = (random.bytes(len), random.below(3));
        field(&mut records, 3, &record(Some(key as u64), hash.map(|h| h as u64), Some(&data), tags));
        parts.push((keys[key].clone(), hash.map(|h| hashes[h].clone()), data));
    }
    let mut tables = Vec::new();
    keys.iter().for_each(|key| field(&mut tables, 1, key.as_bytes()));
    hashes.iter().for_each(|hash| field(&mut tables, 2, hash.as_bytes()));
    // A number that no other aggregate has, in a field that readers do not know.
    let mut own = Vec::new();
    field(&mut own, 15, &random.next().to_be_bytes());
    (if random.below(4) == 0 { [own, records, tables] } else { [own, tables, records] }.concat(), parts)
}

fn record(key: Option<u64>, hash: Option<u64>, data: Option<&[u8]>, tags: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, value) in [(1, key), (2, hash)] {
        if let Some(value) = value {
            varint(&mut out, number << 3);
            varint(&mut out, value);
        }
    }
    if let Some(data) = data {
        field(&mut out, 3, data);
    }
    (0..tags).for_each(|_| field(&mut out, 4, b"\x0A\x03tag\x12\x05value"));
    out
}

/// The magic, the body and its MD5.
fn framed(body: &[u8]) -> Vec<u8> {
    [&[0xF3, 0x89, 0x9A, 0xC2], body, &Md5::digest(body)].concat()
}

/// A field of bytes.
fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn key(&mut self) -> String {
        match self.below(4) {
            0 => String::new(),
            1 => "schlüssel-Ω".repeat(1 + self.below(5)),
            _ => format!("user-{}", self.below(20)),
        }
    }

    fn hash_key(&mut self) -> String {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_string()
    }
}
