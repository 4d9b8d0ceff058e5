//! The structures that calls fill, of 64-bit and i386 programs: every field where the kernel puts it, and
//! nothing written around them.

mod common;

use common::{Build, Run, Scratch, assert_same, guest_as};

const BUILDS: [Build; 2] = [Build::Dynamic, Build::I386];
const DIRECTORY: &str = "/proc/sys/kernel";

fn guest(build: Build, name: &str) -> Run {
    Run::new(&[&guest_as("layouts", build), &format!("{DIRECTORY}/{name}"), DIRECTORY, name])
}

/// What a guest prints of the real file, as if its inode number were small: the oldest structure has 16 bits for it, and a
/// kernel that has run for a while gives procfs greater ones. The oldest calls then fail, where a virtual file's own number
/// fits.
fn bare(run: &Run) -> String {
    let text = run.go().good();
    let facts = text.lines().find_map(|line| line.strip_prefix("stat: ")).expect("stat(2)");
    text.replace("oldstat: EOVERFLOW", &format!("oldstat: {facts}"))
        .replace("oldlstat: EOVERFLOW", &format!("oldlstat: {facts}"))
}

#[test]
fn a_virtual_file_fills_them_as_the_real_one() {
    for build in BUILDS {
        let run = guest(build, "pid_max");
        let bare = bare(&run);
        assert!(!bare.contains("kept 0") && !bare.contains("same ino 0"), "{bare}");
        // The metadata of memfd descriptors is a declared difference.
        let options = ["--set", "kernel.pid_max=77777", "--carrier", "fuse"];
        assert_same(&format!("{build:?}"), &bare, &run.under(&options).go().good());
    }
}

#[test]
fn a_file_that_exists_only_virtually_fills_them_too() {
    for build in BUILDS {
        let only = guest(build, "sysemu_only");
        let like = bare(&guest(build, "pid_max")).replace("pid_max", "sysemu_only");
        assert_same(
            &format!("{build:?}"),
            &like,
            &only.under(&["--file", "/proc/sys/kernel/sysemu_only=1\n"]).go().good(),
        );
    }
}

#[test]
fn names_and_sizes_of_the_system_fit() {
    let scratch = Scratch::new();
    // 64 GiB do not fit 32 bits of bytes: i386 programs get a larger unit.
    for (memory, bytes) in [("3G", 3_u64 << 30), ("64G", 64 << 30)] {
        let text =
            format!("schema = 1\n[uname]\nrelease = \"9.8.7-sysemu\"\n[machine]\nmemory = \"{memory}\"\n");
        let policy = scratch.write("machine.toml", &text);
        for build in BUILDS {
            let text = guest(build, "pid_max").under(&["-p", &policy]).go().good();
            let line =
                |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or("").to_owned();
            assert_eq!(line("uname:"), "uname: Linux 9.8.7-sysemu x86_64 kept 1");
            assert_eq!(line("sysinfo:"), format!("sysinfo: total {bytes} free within it 1 uptime 1 kept 1"));
            if build == Build::I386 {
                assert_eq!(line("olduname:"), "olduname: Linux 9.8.7-sysemu x86_64 kept 1");
                assert_eq!(line("oldolduname:"), "oldolduname: Linux 9.8.7-sy x86_64 kept 1");
            }
        }
    }
}

#[test]
fn a_replaced_file_system_type_fills_them() {
    for build in BUILDS {
        let text = guest(build, "pid_max").under(&["--statfs", "proc=tmpfs"]).go().good();
        let lines: Vec<&str> =
            text.lines().filter(|line| line.contains("statfs") && !line.contains("another size")).collect();
        assert_eq!(lines.len(), if build == Build::I386 { 4 } else { 2 }, "{text}");
        for line in lines {
            assert!(line.contains("type 0x1021994 bsize 4096") && line.ends_with("kept 1"), "{line}");
        }
    }
}
