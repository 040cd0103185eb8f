//! Messy input from a seed: every legal and illegal thing that INTERFACE.md §1 knows, in a plausible mix.
//! In: a seed and a shape. Out: messages in the order in which a producer sends them; asking again goes on.
//! What the interface leaves open (leap seconds, nesting of exactly 128, `17.0` as a sequence) is not made.

pub mod dice;
mod garbage;
mod player;
mod wire;

use dice::Dice;
use player::Player;

use super::{Rec, place};

/// What a producer sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `None`: by the key.
    pub partition: Option<u32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// How the input is to be.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub runs: usize,
    pub workers: usize,
    pub partitions: u32,
    /// One message in so many is a dead letter; 0: none is.
    pub garbage_one_in: u64,
    /// Whether there are values over 1 MiB among the garbage (at most three).
    pub huge: bool,
}

impl Shape {
    /// A shape with garbage, sized for so many events.
    pub fn of(events: usize, partitions: u32) -> Self {
        Self {
            runs: events / 40 + 3,
            workers: events / 200 + 2,
            partitions,
            garbage_one_in: 40,
            huge: false,
        }
    }
}

/// The generator.
pub struct Messy {
    dice: Dice,
    shape: Shape,
    players: Vec<Player>,
    /// Messages to send again, of any age.
    sent: Vec<Message>,
    /// Messages that come late: not before this many have been made.
    late: Vec<(usize, Message)>,
    made: usize,
    huge_left: usize,
    garbage_made: u64,
}

impl Messy {
    /// The same seed and shape give the same messages.
    pub fn new(seed: u64, shape: Shape) -> Self {
        let mut dice = Dice::new(seed);
        let mut players = vec![
            Player::many_sources("run/many-sources"),
            Player::many_gaps("run/many-gaps"),
            Player::large_sequences("worker/large.sequences"),
        ];
        players.extend((0..shape.runs).map(|i| Player::new(&mut dice, &format!("run/r{seed}_{i}"))));
        players.extend((0..shape.workers).map(|i| Player::new(&mut dice, &format!("worker/w{seed}:{i}"))));
        Self {
            dice,
            shape,
            players,
            sent: Vec::new(),
            late: Vec::new(),
            made: 0,
            huge_left: if shape.huge { 3 } else { 0 },
            garbage_made: 0,
        }
    }

    /// The next `n` messages.
    pub fn take(&mut self, n: usize) -> Vec<Message> {
        (0..n).map(|_| self.message()).collect()
    }

    /// The next messages as records of an in-memory log that begins at the given offsets.
    pub fn records(&mut self, n: usize, next: &mut [u64]) -> Vec<Rec> {
        self.take(n)
            .into_iter()
            .map(|message| self.place(message, next))
            .collect()
    }

    fn place(&mut self, message: Message, next: &mut [u64]) -> Rec {
        let by_key = |key: &Vec<u8>| place::partition_of(key, self.shape.partitions);
        let partition = message.partition.or(message.key.as_ref().map(by_key)).unwrap_or(0);
        let offset = next[partition as usize];
        // Offsets may have holes: transaction markers take them too.
        next[partition as usize] += 1 + u64::from(self.dice.one_in(50));
        Rec {
            partition,
            offset,
            timestamp_ms: 1_770_000_000_000 + self.made as i64 * 7 - self.dice.below(40) as i64,
            key: message.key,
            value: message.value,
            headers: message.headers,
        }
    }

    fn message(&mut self) -> Message {
        self.made += 1;
        if let Some(at) = self.late.iter().position(|(due, _)| *due <= self.made) {
            return self.late.swap_remove(at).1;
        }
        if self.shape.garbage_one_in > 0 && self.dice.one_in(self.shape.garbage_one_in) {
            return self.garbage();
        }
        if !self.sent.is_empty() && self.dice.one_in(30) {
            return self.dice.pick(&self.sent).clone();
        }
        loop {
            let message = self.fresh();
            if self.dice.one_in(50) {
                continue; // lost on the way: its sequence is a gap
            }
            if self.dice.one_in(8) || self.sent.len() < 100 {
                self.sent.push(message.clone());
            }
            if self.dice.one_in(30) {
                let due = self.made + 1 + self.dice.below(200) as usize;
                self.late.push((due, message));
                continue;
            }
            return message;
        }
    }

    fn fresh(&mut self) -> Message {
        // A few entities get much, and a window that moves on gets the rest, as runs come and go.
        let count = self.players.len() as u64;
        let start = (self.made as u64 / 20) % count;
        let at = match self.dice.below(10) {
            0 => self.dice.below(3.min(count)),
            1 => self.dice.below(count),
            _ => (start + self.dice.below(20)) % count,
        };
        let at = if self.players[at as usize].is_done() {
            0
        } else {
            at as usize
        };
        self.players[at].message(&mut self.dice)
    }

    fn garbage(&mut self) -> Message {
        let base = self.fresh();
        if self.huge_left > 0 && self.dice.one_in(20) {
            self.huge_left -= 1;
            return garbage::too_large(base);
        }
        self.garbage_made += 1;
        garbage::garbage(&mut self.dice, &base, self.garbage_made, self.shape.partitions)
    }
}
