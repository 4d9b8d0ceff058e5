//! What write(2) does to a value: the bytes, the count that is returned, and the errors, as the kernel's handlers.
//!
//! Linux: kernel/sysctl.c, `do_proc_dointvec`, `do_proc_douintvec`, `do_proc_doulongvec_minmax`, `_proc_do_string`,
//! `proc_get_long`, with `kernel.sysctl_writes_strict` at 1 (otherwise the
//! caller gives 0 for every offset). Checked against the running kernel by
//! `tests/write_semantics.rs`.

use super::Codec;
use crate::emulator::errno::Errno;

/// What one write(2) did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The content from now on, as read(2) shows it; `None` when it stays as it was. Values before a bad one are
    /// applied although the call fails.
    pub content: Option<Vec<u8>>,
    /// What write(2) returns.
    pub result: Result<usize, Errno>,
    /// Whether the file position moves by what was written. Some handlers forget to move it.
    pub moves: bool,
}

impl Written {
    fn refused(errno: Errno) -> Self {
        Written { content: None, result: Err(errno), moves: false }
    }

    /// Accepted without effect.
    fn ignored(len: usize) -> Self {
        Written { content: None, result: Ok(len), moves: true }
    }
}

/// Most bytes of a number or list that are looked at: a page without its last byte.
const LOOKED_AT: usize = 4095;
/// Longest number, sign and leading zeros included (TMPBUFLEN of the kernel, without the NUL).
const LONGEST: usize = 21;
/// Most bytes that free text can grow to.
const MAX_TEXT: usize = 1 << 20;

impl Codec {
    /// Writes `data` at `offset` over the content `old` (as [`Codec::canonical`] gives it).
    pub fn write(&self, old: &[u8], data: &[u8], offset: u64) -> Written {
        match self {
            Codec::Str { max } => write_string(old, data, offset, *max),
            _ if data.is_empty() || offset != 0 => Written::ignored(data.len()),
            Codec::Uint { min, max } => write_uint(data, *min, *max),
            Codec::Bool => {
                let int = |number: Number| number.signed(i32::MIN, i32::MAX);
                write_list(old, 1, data, |number| int(number).map(|value| u8::from(value != 0).to_string()))
            }
            Codec::Int { min, max } => write_list(old, 1, data, |number| as_text(number.signed(*min, *max))),
            Codec::IntList { len, min, max } => {
                write_list(old, *len, data, |number| as_text(number.signed(*min, *max)))
            }
            Codec::Ulong { min, max } => {
                write_list(old, 1, data, |number| as_text(number.unsigned(*min, *max)))
            }
            Codec::UlongList { len, min, max } => {
                write_list(old, *len, data, |number| as_text(number.unsigned(*min, *max)))
            }
        }
    }
}

/// Writes `data` at `offset` over a file without a type: what was there behind the written bytes is gone.
pub fn write_text(old: &[u8], data: &[u8], offset: u64) -> Written {
    let Some(kept) = usize::try_from(offset).ok().and_then(|offset| old.get(..offset)) else {
        return Written::ignored(data.len());
    };
    if data.is_empty() {
        return Written::ignored(0);
    }
    if kept.len() + data.len() > MAX_TEXT {
        return Written::refused(Errno::ENOSPC);
    }
    Written { content: Some([kept, data].concat()), result: Ok(data.len()), moves: true }
}

fn as_text<T: ToString>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// A parsed number before its type and range are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number {
    is_negative: bool,
    magnitude: u64,
}

impl Number {
    fn signed(self, min: i32, max: i32) -> Option<i32> {
        let magnitude = i64::try_from(self.magnitude).ok()?;
        let value = i32::try_from(if self.is_negative { -magnitude } else { magnitude }).ok()?;
        (min..=max).contains(&value).then_some(value)
    }

    fn unsigned(self, min: u64, max: u64) -> Option<u64> {
        (!self.is_negative && (min..=max).contains(&self.magnitude)).then_some(self.magnitude)
    }
}

/// `isspace` of the kernel: 0xa0 counts.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !is_space(*byte)).unwrap_or(text.len());
    &text[end..]
}

/// Takes a number from the front, with what must follow it: nothing, a blank, a tab or a newline.
fn take_number(text: &[u8]) -> Option<(Number, &[u8])> {
    let window = &text[..text.len().min(LONGEST)];
    let is_negative = window.first() == Some(&b'-') && text.len() > 1;
    let digits = &window[usize::from(is_negative)..];
    let (prefix, radix) = match digits {
        [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit() => (2, 16),
        [b'0', ..] => (0, 8),
        [b'1'..=b'9', ..] => (0, 10),
        _ => return None,
    };
    let mut magnitude = 0u64;
    let mut len = usize::from(is_negative) + prefix;
    for byte in &digits[prefix..] {
        let Some(digit) = char::from(*byte).to_digit(radix) else { break };
        magnitude = magnitude.checked_mul(radix.into())?.checked_add(digit.into())?;
        len += 1;
    }
    if len == LONGEST || text.get(len).is_some_and(|byte| !matches!(byte, b' ' | b'\t' | b'\n')) {
        return None;
    }
    Some((Number { is_negative, magnitude }, &text[len..]))
}

/// `do_proc_dointvec` and `do_proc_doulongvec_minmax`: fewer values set the leading ones, more are left to the next
/// write(2), and those before a bad one count.
fn write_list(old: &[u8], len: usize, data: &[u8], convert: impl Fn(Number) -> Option<String>) -> Written {
    let mut left = &data[..data.len().min(LOOKED_AT)];
    let mut values = Vec::new();
    let mut errno = None;
    while !left.is_empty() && values.len() < len {
        left = skip_spaces(left);
        if left.is_empty() {
            break;
        }
        match take_number(left).and_then(|(number, rest)| Some((convert(number)?, rest))) {
            Some((value, rest)) => {
                values.push(value);
                left = rest;
            }
            None => {
                errno = Some(Errno::EINVAL);
                break;
            }
        }
    }
    if values.is_empty() {
        return Written::refused(Errno::EINVAL);
    }
    let old = String::from_utf8_lossy(old);
    values.extend(old.split_ascii_whitespace().skip(values.len()).map(str::to_owned));
    let content = format!("{}\n", values.join("\t")).into_bytes();
    let result = match errno {
        Some(errno) => Err(errno),
        None => Ok(data.len() - skip_spaces(left).len()),
    };
    Written { content: Some(content), result, moves: errno.is_none() }
}

/// `do_proc_douintvec_w`: takes everything, whatever follows the number, and forgets to move the position.
fn write_uint(data: &[u8], min: u32, max: u32) -> Written {
    let text = skip_spaces(&data[..data.len().min(LOOKED_AT)]);
    let value = take_number(text).and_then(|(number, _)| number.unsigned(min.into(), max.into()));
    match value {
        Some(value) => {
            Written { content: Some(format!("{value}\n").into_bytes()), result: Ok(data.len()), moves: false }
        }
        None => Written::refused(Errno::EINVAL),
    }
}

/// `_proc_do_string`: ends at a newline or NUL, cuts silently, goes on at the position unless that is behind the end.
fn write_string(old: &[u8], data: &[u8], offset: u64, max: usize) -> Written {
    if data.is_empty() {
        return Written::ignored(0);
    }
    let old = old.strip_suffix(b"\n").unwrap_or(old);
    let Some(kept) = usize::try_from(offset).ok().and_then(|offset| old.get(..offset)) else {
        return Written { moves: false, ..Written::ignored(data.len()) };
    };
    let line = data.split(|byte| matches!(byte, b'\n' | 0)).next().unwrap_or_default();
    let room = max.saturating_sub(kept.len());
    let content = [kept, &line[..line.len().min(room)], b"\n"].concat();
    Written { content: Some(content), result: Ok(data.len()), moves: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT: Codec = Codec::Int { min: i32::MIN, max: i32::MAX };

    /// What a write gives: count or errno, and the content afterwards.
    fn write(codec: &Codec, old: &str, data: &str, offset: u64) -> String {
        let written = codec.write(old.as_bytes(), data.as_bytes(), offset);
        let content = written.content.unwrap_or_else(|| old.as_bytes().to_vec());
        let result = written.result.map_or_else(|errno| errno.to_string(), |count| count.to_string());
        format!("{result} {:?}", String::from_utf8_lossy(&content))
    }

    #[test]
    fn a_second_token_gives_a_short_count() {
        assert_eq!(write(&INT, "7\n", "1 junk", 0), r#"2 "1\n""#);
        assert_eq!(write(&INT, "7\n", "1junk", 0), r#"EINVAL "7\n""#);
        assert_eq!(write(&Codec::Uint { min: 0, max: 9 }, "7\n", "1 junk", 0), r#"6 "1\n""#);
    }

    #[test]
    fn values_before_a_bad_one_are_applied() {
        let codec = Codec::IntList { len: 3, min: 1, max: i32::MAX };
        assert_eq!(write(&codec, "7\t8\t9\n", "1 x 3", 0), r#"EINVAL "1\t8\t9\n""#);
        assert_eq!(write(&codec, "7\t8\t9\n", "1 2 3 4", 0), r#"6 "1\t2\t3\n""#);
        assert_eq!(write(&codec, "7\t8\t9\n", "1", 0), r#"1 "1\t8\t9\n""#);
    }

    #[test]
    fn numbers_ignore_what_is_not_at_the_start() {
        assert_eq!(write(&INT, "7\n", "junk", 1), r#"4 "7\n""#);
    }

    #[test]
    fn strings_go_on_where_the_position_is() {
        let codec = Codec::Str { max: 5 };
        assert_eq!(write(&codec, "abc\n", "xy\n", 1), r#"3 "axy\n""#);
        assert_eq!(write(&codec, "abc\n", "defgh", 3), r#"5 "abcde\n""#);
        assert_eq!(write(&codec, "abc\n", "x", 4), r#"1 "abc\n""#);
        assert_eq!(write(&codec, "abc\n", "x\0y\nz", 0), r#"5 "x\n""#);
    }

    #[test]
    fn long_numbers_are_refused_and_the_longest_taken() {
        let codec = Codec::Ulong { min: 0, max: u64::MAX };
        assert_eq!(write(&codec, "7\n", "18446744073709551615", 0), r#"20 "18446744073709551615\n""#);
        for bad in ["18446744073709551616", "000000000000000000001", "-1"] {
            assert_eq!(write(&codec, "7\n", bad, 0), r#"EINVAL "7\n""#, "{bad}");
        }
    }

    #[test]
    fn nothing_that_is_written_makes_a_codec_show_what_it_would_not_take() {
        let codecs = [
            INT,
            Codec::Uint { min: 1, max: 99 },
            Codec::Bool,
            Codec::Str { max: 9 },
            Codec::IntList { len: 3, min: 0, max: 500 },
            Codec::UlongList { len: 2, min: 0, max: u64::MAX },
        ];
        let alphabet = b"0123456789-x \t\n,a\0";
        let mut state = 12345u64;
        for _ in 0..20000 {
            let mut data = Vec::new();
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            for _ in 0..(state >> 60) + 1 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                data.push(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            for codec in &codecs {
                let old = codec.canonical(if matches!(codec, Codec::Bool) { "1" } else { "7 7 7" });
                let old = old.or_else(|_| codec.canonical("7 7")).or_else(|_| codec.canonical("7"));
                let Some(content) = codec.write(old.expect("good").as_bytes(), &data, state >> 63).content
                else {
                    continue;
                };
                let text = String::from_utf8(content).expect("ASCII");
                assert_eq!(codec.canonical(&text).as_deref(), Ok(text.as_str()), "{codec:?} {data:?}");
            }
        }
    }
}
