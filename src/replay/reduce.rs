//! The smallest part of a record that shows a difference.

use super::{Played, Record, RecordError, Replayer, policy_of};
use crate::emulator::record::{CallLine, Header, line};
use crate::policy::{Policy, show};

/// Finds the smallest call that differs, and leaves out of it and of the policy what the difference does not need;
/// `None` when all calls are as recorded.
///
/// Left out is only what leaves the outcome exactly as it is, so that the reduced call differs for the same reason.
///
/// # Errors
/// See [`RecordError`].
pub fn reduce(record: &Record) -> Result<Option<Record>, RecordError> {
    let mut replayer = Replayer::new(&record.header)?;
    let size = |call: &CallLine| line(call).map_or(usize::MAX, |text| text.len());
    let mut smallest: Option<(usize, CallLine, Played)> = None;
    for call in &record.calls {
        let played = replayer.serve(call);
        if played.is_as_recorded(call) {
            continue;
        }
        let call = slim(&mut replayer, call, &played);
        let size = size(&call);
        if smallest.as_ref().is_none_or(|(least, ..)| size < *least) {
            smallest = Some((size, call, played));
        }
    }
    let Some((_, call, played)) = smallest else { return Ok(None) };
    let header = slim_policy(&record.header, &call, &played)?;
    Ok(Some(Record { header, calls: vec![call] }))
}

/// Whether a call still comes to the same.
fn is_same(replayer: &mut Replayer, call: &CallLine, before: &Played) -> bool {
    let now = replayer.serve(call);
    now.outcome == before.outcome && now.unknown == before.unknown
}

/// A call without what its outcome does not depend on.
fn slim(replayer: &mut Replayer, call: &CallLine, played: &Played) -> CallLine {
    let mut call = call.clone();
    call.facts.retain(|question, _| played.asked.contains(question));
    let (values, pieces, call_args) = (call.state.values.len(), call.memory.len(), call.args.len());
    let mut attempt = |change: &dyn Fn(&mut CallLine)| {
        let mut smaller = call.clone();
        change(&mut smaller);
        if is_same(replayer, &smaller, played) {
            call = smaller;
        }
    };
    attempt(&|call| call.state = Default::default());
    // From the end, so that what is left keeps its place.
    for index in (0..values).rev() {
        attempt(&|call| drop_at(&mut call.state.values, index));
    }
    for index in (0..pieces).rev() {
        attempt(&|call| drop_at(&mut call.memory, index));
    }
    for index in 0..call_args {
        attempt(&|call| call.args[index] = 0);
    }
    call
}

fn drop_at<T>(list: &mut Vec<T>, index: usize) {
    if index < list.len() {
        list.remove(index);
    }
}

/// The header with as few rows as the outcome needs: halves, quarters and so on are left out as long as that works.
fn slim_policy(header: &Header, call: &CallLine, played: &Played) -> Result<Header, RecordError> {
    let mut policy = policy_of(header)?;
    let mut chunk = policy.rows.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < policy.rows.len() {
            let end = (at + chunk).min(policy.rows.len());
            let smaller = without(&policy, at..end);
            if still_same(header, &smaller, call, played) {
                policy = smaller;
            } else {
                at = end;
            }
        }
        chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
    }
    Ok(Header { policy: show::policy(&policy), ..header.clone() })
}

fn without(policy: &Policy, rows: std::ops::Range<usize>) -> Policy {
    let mut smaller = policy.clone();
    smaller.rows.drain(rows);
    smaller
}

/// Judged by what will be in the file.
fn still_same(header: &Header, policy: &Policy, call: &CallLine, played: &Played) -> bool {
    let header = Header { policy: show::policy(policy), ..header.clone() };
    Replayer::new(&header).is_ok_and(|mut replayer| is_same(&mut replayer, call, played))
}
