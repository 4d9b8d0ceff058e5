//! `decode`.

use std::cell::RefCell;

use sysemu::emulator::abi::ABIS;
use sysemu::emulator::record::{CallLine, WILLING};
use sysemu::emulator::resolve::path::{Buffer, read_path};
use sysemu::emulator::sys::tape::{self, Facts, Piece};
use sysemu::replay::{Record, Replayer};

use crate::input::Input;

/// Where the memory of an input is.
pub const BASE: u64 = 0x10000;

/// The record that the world is taken from.
const WORLD: &[u8] = include_bytes!("../../fixtures/records/calls.record");

/// A recorded world: what any call of the record was told.
pub struct World {
    replayer: Replayer,
    facts: Facts,
    /// The calls of the record.
    pub calls: Vec<CallLine>,
}

impl World {
    fn new() -> Self {
        let record = Record::parse(WORLD).expect("a good record");
        let replayer = Replayer::new(&record.header).expect("an emulator");
        let mut facts = Facts::new();
        for call in &record.calls {
            for (question, answers) in &call.facts {
                facts.entry(question.clone()).or_insert_with(|| answers.clone());
            }
        }
        for (question, answer) in WILLING {
            facts.insert(question.into(), vec![serde_json::from_str(answer).expect("JSON")]);
        }
        World { replayer, facts, calls: record.calls }
    }

    /// Serves a call in this world, and says what was done.
    pub fn serve(&mut self, call: CallLine) -> Vec<String> {
        let facts = self.facts.clone();
        self.replayer.serve(&CallLine { facts, ..call }).outcome
    }
}

/// Does something in the world of the calling thread.
pub fn in_world<T>(act: impl FnOnce(&mut World) -> T) -> T {
    thread_local! {
        static WORLD: RefCell<World> = RefCell::new(World::new());
    }
    WORLD.with_borrow_mut(act)
}

/// Any registers and any memory, for every call of every ABI: the handler does not panic, the call is answered once, and
/// only buffers that the caller named are written.
///
/// The input: ABI, number of the recorded call whose state is taken and which is made unless the next byte gives a
/// number, that byte and another one; six registers, of which some are addresses in the memory; the memory.
pub fn decode(data: &[u8]) {
    let mut input = Input(data);
    let abi = input.one(&ABIS);
    let number = input.byte();
    let nr = u32::from(input.byte()) << 8 | u32::from(input.byte());
    let args: [u64; 6] = std::array::from_fn(|_| match input.byte() {
        odd if odd & 1 != 0 => BASE + u64::from(odd >> 1),
        _ => input.register(),
    });
    let memory = input.0;
    in_world(|world| {
        let base = world.calls[usize::from(number) % world.calls.len()].clone();
        let (abi, nr) = match nr {
            0 => (base.abi.clone(), base.nr),
            nr => (abi.name.to_owned(), (nr % 600) | abi.nr_bits),
        };
        let memory = vec![Piece { at: BASE, bytes: tape::text(memory), errno: 0 }];
        let outcome = world.serve(CallLine { abi, nr, args, memory, ..base });
        check(&outcome, args);
    });
    copied(memory);
}

fn is_answer(act: &str) -> bool {
    ["continue", "return ", "fail "].iter().any(|answer| act.starts_with(answer))
}

fn check(outcome: &[String], args: [u64; 6]) {
    let answers = outcome.iter().filter(|act| is_answer(act)).count();
    assert!(answers == 1 && outcome.last().is_some_and(|act| is_answer(act)), "{outcome:?}");
    assert!(
        !outcome.iter().any(|act| act.contains("panicked") || act.starts_with("return -")),
        "{outcome:?}"
    );
    for act in outcome {
        if let Some((address, _)) = act.strip_prefix("store 0x").and_then(|rest| rest.split_once(' ')) {
            let address = u64::from_str_radix(address, 16).expect("an address");
            assert!(args.contains(&address), "{args:x?} {act}");
        }
    }
}

/// The copying of a path out of any memory.
fn copied(memory: &[u8]) {
    match read_path(&Buffer { base: BASE, bytes: memory }, BASE) {
        Ok(path) => {
            assert!(memory.starts_with(&path) && memory.get(path.len()) == Some(&0) && path.len() < 4096);
        }
        Err(_) => assert!(!memory.iter().take(4096).any(|byte| *byte == 0)),
    }
}

/// A recorded call as an input of [`decode`]; its memory is moved to where inputs have theirs. `None` for a call that
/// does not fit.
pub fn seed(call: &CallLine) -> Option<Vec<u8>> {
    let abi = ABIS.iter().position(|abi| abi.name == call.abi)?;
    let nr = u16::try_from(call.nr & !ABIS[abi].nr_bits).ok()?.to_be_bytes();
    let mut seed = vec![u8::try_from(abi).ok()?, 0, nr[0], nr[1]];
    let mut memory = Vec::new();
    let mut places = Vec::new();
    for piece in &call.memory {
        places.push((piece.at, memory.len()));
        memory.extend(tape::untext(&piece.bytes)?);
    }
    for arg in call.args {
        match places.iter().find(|(at, _)| *at == arg) {
            Some((_, offset)) => seed.push(u8::try_from(offset << 1 | 1).ok()?),
            None => {
                // An even byte, then a register that is given in full.
                seed.extend([0, 6]);
                seed.extend(arg.to_le_bytes());
            }
        }
    }
    Some([seed, memory].concat())
}
