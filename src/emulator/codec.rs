//! How the text of a sysctl is parsed and printed: the kernel's `proc_do*` handlers as data.
//!
//! Linux: kernel/sysctl.c (`proc_dointvec_minmax`, `proc_doulongvec_minmax`, `proc_dostring`,
//! `proc_dobool`). Reading prints one value and a newline, or a vector separated by tabs.

use super::errno::Errno;

pub mod write;

/// The type of a value with its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Codec {
    /// `int`: one signed 32-bit number.
    Int {
        /// Smallest accepted value.
        min: i32,
        /// Largest accepted value.
        max: i32,
    },
    /// `uint`: one unsigned 32-bit number.
    Uint {
        /// Smallest accepted value.
        min: u32,
        /// Largest accepted value.
        max: u32,
    },
    /// `ulong`: one unsigned 64-bit number (32-bit programs read the same text).
    Ulong {
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
    },
    /// `bool`: 0 or 1.
    Bool,
    /// `string`: at most `max` bytes, one line.
    Str {
        /// Capacity in bytes, without the final NUL.
        max: usize,
    },
    /// `int-list`: `len` signed 32-bit numbers.
    IntList {
        /// Number of values.
        len: usize,
        /// Smallest accepted value of each.
        min: i32,
        /// Largest accepted value of each.
        max: i32,
    },
    /// `ulong-list`: `len` unsigned 64-bit numbers.
    UlongList {
        /// Number of values.
        len: usize,
        /// Smallest accepted value of each.
        min: u64,
        /// Largest accepted value of each.
        max: u64,
    },
}

impl Codec {
    /// Checks a whole value and gives the canonical text that read(2) shows, final newline included.
    ///
    /// # Errors
    /// EINVAL as the kernel gives it for a bad or out-of-range value, or for a list of the wrong length.
    pub fn canonical(&self, text: &str) -> Result<String, Errno> {
        let words = || text.split_ascii_whitespace();
        match self {
            Codec::Int { min, max } => Ok(format!("{}\n", one(words(), |w| signed(w, *min, *max))?)),
            Codec::Uint { min, max } => {
                let value = one(words(), |w| unsigned(w, u64::from(*min), u64::from(*max)))?;
                Ok(format!("{value}\n"))
            }
            Codec::Ulong { min, max } => Ok(format!("{}\n", one(words(), |w| unsigned(w, *min, *max))?)),
            Codec::Bool => Ok(format!("{}\n", one(words(), |w| unsigned(w, 0, 1))?)),
            Codec::Str { max } => {
                let line = text.strip_suffix('\n').unwrap_or(text);
                if line.len() > *max || line.contains(['\n', '\0']) {
                    return Err(Errno::EINVAL);
                }
                Ok(format!("{line}\n"))
            }
            Codec::IntList { len, min, max } => {
                let values: Vec<i32> = words().map(|w| signed(w, *min, *max)).collect::<Result<_, _>>()?;
                list(&values, *len)
            }
            Codec::UlongList { len, min, max } => {
                let values: Vec<u64> = words().map(|w| unsigned(w, *min, *max)).collect::<Result<_, _>>()?;
                list(&values, *len)
            }
        }
    }

    /// Whether read(2) at an offset other than 0 continues the text (strings) or gives nothing (numbers).
    pub fn honours_offset(&self) -> bool {
        matches!(self, Codec::Str { .. })
    }
}

fn one<'a, T>(
    mut words: impl Iterator<Item = &'a str>,
    parse: impl Fn(&str) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let value = parse(words.next().ok_or(Errno::EINVAL)?)?;
    match words.next() {
        None => Ok(value),
        Some(_) => Err(Errno::EINVAL),
    }
}

fn list<T: ToString>(values: &[T], len: usize) -> Result<String, Errno> {
    if values.len() != len {
        return Err(Errno::EINVAL);
    }
    let text: Vec<String> = values.iter().map(T::to_string).collect();
    Ok(format!("{}\n", text.join("\t")))
}

/// C base rules: `0x` hexadecimal, a leading `0` octal, else decimal (`strtoul` with base 0).
fn magnitude(digits: &str) -> Result<u64, Errno> {
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    // from_str_radix would take a sign here, the kernel does not.
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return Err(Errno::EINVAL);
    }
    u64::from_str_radix(digits, radix).map_err(|_| Errno::EINVAL)
}

fn unsigned(word: &str, min: u64, max: u64) -> Result<u64, Errno> {
    let value = magnitude(word)?;
    if (min..=max).contains(&value) { Ok(value) } else { Err(Errno::EINVAL) }
}

fn signed(word: &str, min: i32, max: i32) -> Result<i32, Errno> {
    let (digits, sign) = match word.strip_prefix('-') {
        Some(rest) => (rest, -1),
        None => (word, 1),
    };
    let value = i64::try_from(magnitude(digits)?).map_err(|_| Errno::EINVAL)? * sign;
    let value = i32::try_from(value).map_err(|_| Errno::EINVAL)?;
    if (min..=max).contains(&value) { Ok(value) } else { Err(Errno::EINVAL) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_INT: Codec = Codec::Int { min: i32::MIN, max: i32::MAX };

    #[test]
    fn int_follows_c_base_rules() {
        for (text, shown) in
            [("7", "7\n"), ("-3", "-3\n"), ("0x10", "16\n"), ("010", "8\n"), (" 5 \n", "5\n")]
        {
            assert_eq!(ANY_INT.canonical(text).as_deref(), Ok(shown), "{text:?}");
        }
        for bad in ["", " ", "+1", "1junk", "1,", "0x", "--1", "1 2", "99999999999", "-2147483649"] {
            assert_eq!(ANY_INT.canonical(bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn range_applies_to_each_value_of_a_list() {
        let codec = Codec::IntList { len: 3, min: 1, max: 10 };
        assert_eq!(codec.canonical("1 2\t3").as_deref(), Ok("1\t2\t3\n"));
        assert_eq!(codec.canonical("1 2 11"), Err(Errno::EINVAL));
        assert_eq!(codec.canonical("1 2"), Err(Errno::EINVAL));
    }

    #[test]
    fn ulong_takes_all_64_bits_and_no_sign() {
        let codec = Codec::Ulong { min: 0, max: u64::MAX };
        assert_eq!(codec.canonical("18446744073709551615").as_deref(), Ok("18446744073709551615\n"));
        assert_eq!(codec.canonical("18446744073709551616"), Err(Errno::EINVAL));
        assert_eq!(codec.canonical("-1"), Err(Errno::EINVAL));
    }

    #[test]
    fn string_keeps_blanks_and_is_one_line() {
        let codec = Codec::Str { max: 5 };
        assert_eq!(codec.canonical(" ab\n").as_deref(), Ok(" ab\n"));
        assert_eq!(codec.canonical("").as_deref(), Ok("\n"));
        assert_eq!(codec.canonical("a\nb"), Err(Errno::EINVAL));
        assert_eq!(codec.canonical("123456"), Err(Errno::EINVAL));
    }
}
