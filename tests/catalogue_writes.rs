//! What the catalogue's rows say about writing, against the kernel that runs the test: types, ranges, rules. Only keys
//! that belong to a namespace, because others cannot be written without harm.

mod common;

use common::{Run, Scratch, is_root, skip};
use sysemu::emulator::codec::Codec;
use sysemu::policy::{Content, Loader, Policy, Rounding, Row, What, When, WriteRules, show};

/// Rows whose range depends on the machine or the interface, and one that cannot be set back.
const DEPENDS: &[&str] = &["unres_qlen", "/mtu", "nf_conntrack_max", "nf_hooks_lwtunnel"];

/// Writes each probe over the row's value and prints what write(2) gave and what is there then.
const GUEST: &str = r#"
import os, sys
def write(path, text):
    try:
        f = os.open(path, os.O_WRONLY)
    except OSError as e: return 'open ' + e.strerror
    try: return os.write(f, text)
    except OSError as e: return e.strerror
    finally: os.close(f)
for line in open(sys.argv[1]):
    path, value, *probes = line.rstrip('\n').split('|')
    if not os.path.exists(path) or not os.access(path, os.W_OK): continue
    for probe in probes:
        write(path, value.encode())
        print(path, probe, write(path, probe.encode()), repr(open(path).read()))
    write(path, value.encode())
"#;

/// The ends of the range and what is next to them, and texts that tell types apart.
fn probes(codec: &Codec, rules: &WriteRules, value: &str) -> Vec<String> {
    let ends = |min: i128, max: i128| -> Vec<String> {
        [min - 1, min, min + 1, max - 1, max, max + 1].iter().map(i128::to_string).collect()
    };
    let mut probes = match codec {
        // Kept in ticks of the clock the kernel's values overflow; the row says 32 bits.
        _ if matches!(rules.rounding, Some(Rounding::Down(_))) => ends(1, 1_000_000),
        Codec::Int { min, max } => ends((*min).into(), (*max).into()),
        Codec::Uint { min, max } => ends((*min).into(), (*max).into()),
        Codec::Ulong { min, max } => ends((*min).into(), (*max).into()),
        Codec::Bool => ends(0, 1),
        Codec::IntList { min, max, .. } => ends((*min).into(), (*max).into()),
        Codec::UlongList { min, max, .. } => ends((*min).into(), (*max).into()),
        Codec::Str { .. } => vec!["no-such-word".into()],
    };
    let tells: &[&str] = match codec {
        Codec::Str { .. } => &[],
        _ => &["", "-0", "+1", "x", "7", "1001", "50 51", "51 50", "51 x"],
    };
    probes.extend(tells.iter().map(|text| (*text).to_owned()));
    if !matches!(codec, Codec::Str { .. }) {
        probes.push(format!("{value} junk"));
    }
    probes
}

/// The concrete file that stands for a row, its value, and what is written.
fn probed(row: &Row) -> Option<(String, String, Vec<String>)> {
    let What::File { content: Content::Fixed(bytes), codec: Some(codec), scope, rules, .. } = &row.what
    else {
        return None;
    };
    let is_namespaced = !matches!(scope, sysemu::policy::Scope::Global | sysemu::policy::Scope::User);
    let is_odd = DEPENDS.iter().any(|name| row.path.contains(name));
    let is_number = !matches!(codec, Codec::Str { .. }) || row.path.ends_with("tcp_congestion_control");
    let can_be = row.mode & 0o600 == 0o600 && !row.path.contains("/kernel/msg_next_id");
    (is_namespaced && !is_odd && is_number && can_be).then(|| {
        let value = String::from_utf8_lossy(bytes).trim_end().replace('\t', " ");
        let probes = probes(codec, rules, &value);
        (row.path.replace('*', "lo"), value, probes)
    })
}

/// Why the kernel here has nothing to say about the catalogue.
fn not_comparable() -> Option<&'static str> {
    if !is_root() {
        return Some("namespaces with sysctls of their own need root");
    }
    let uname = nix::sys::utsname::uname().expect("it has names");
    let is_same = uname.release().to_string_lossy().starts_with("6.18.");
    (!is_same).then_some("the catalogue's ranges are those of Linux 6.18")
}

/// The catalogue with every row in force.
fn catalogue() -> Policy {
    let mut policy: Policy = Loader::new().policy("linux").load().expect("the built-in policy is good");
    policy.rows.iter_mut().for_each(|row| row.when = When::Always);
    policy
}

fn isolated(run: &Run) -> String {
    let mut words = vec!["unshare", "-n", "-i", "-u"];
    words.extend(run.words());
    Run::new(&words).go().good()
}

#[test]
fn keys_that_depend_on_each_other_do_as_the_kernels() {
    if let Some(reason) = not_comparable() {
        return skip("keys_that_depend_on_each_other_do_as_the_kernels", reason);
    }
    let scratch = Scratch::new();
    let file = scratch.write("p.toml", &show::policy(&catalogue()));
    let script = r#"
        w() { printf '%s <- %s: ' $1 "$2"; (printf "$2" >$1) 2>/dev/null && echo ok || echo no; }
        cd /proc/sys/net/ipv4
        w conf/default/tag 7; echo "lo $(cat conf/lo/tag) all $(cat conf/all/tag)"
        w conf/lo/tag 3; w conf/default/tag 8; echo "lo $(cat conf/lo/tag)"
        w conf/all/tag 9; echo "lo $(cat conf/lo/tag) default $(cat conf/default/tag)"
        f() { echo forwarding $(cat ip_forward conf/all/forwarding conf/default/forwarding conf/lo/forwarding); }
        w ip_forward 0; f; w ip_forward 5; f; w conf/lo/forwarding 0; f; w conf/all/forwarding 0; f
        w conf/default/forwarding 1; f; w conf/all/forwarding x; f
        w ip_unprivileged_port_start 1024; w ip_local_port_range "2000 3000"
        w ip_unprivileged_port_start 2001; w ip_unprivileged_port_start 2000; w ip_unprivileged_port_start 1000
        w ip_local_port_range 2000; cat ip_local_port_range; w ip_local_port_range 3001
        w ip_local_port_range "1000 1000"; w ip_local_port_range "999 2000"; w ip_local_port_range "3 2 x"
        cat ip_local_port_range; w ping_group_range "5 4"; cat ping_group_range; w ping_group_range "0 2147483647"
        cat ping_group_range; w tcp_congestion_control nope; w tcp_congestion_control reno; cat tcp_congestion_control
        cd ../ipv6
        f() { echo $1 $(cat conf/all/$1 conf/default/$1 conf/lo/$1); }
        w conf/all/forwarding 0; w conf/all/forwarding 1; f forwarding; w conf/default/forwarding 0; f forwarding
        w conf/all/disable_ipv6 1; f disable_ipv6; w conf/lo/disable_ipv6 0; f disable_ipv6
        w conf/default/hop_limit 7; f hop_limit; w conf/all/hop_limit 9; f hop_limit
        cd ../bridge; w bridge-nf-call-iptables 7; cat bridge-nf-call-iptables
        unshare -n sh -c 'cat /proc/sys/net/ipv4/ping_group_range'
    "#;
    let run = Run::shell(script);
    let bare = isolated(&run);
    assert!(bare.contains("ip_forward <- 5: ok\nforwarding 5 5 5 5\n"), "{bare}");
    common::assert_same("dependent keys", &bare, &isolated(&run.under(&["-p", &file, "--carrier", "fuse"])));
}

#[test]
fn ranges_types_and_rules_are_the_kernels() {
    if !is_root() {
        return skip(
            "ranges_types_and_rules_are_the_kernels",
            "namespaces with sysctls of their own need root",
        );
    }
    if let Some(reason) = not_comparable() {
        return skip("ranges_types_and_rules_are_the_kernels", reason);
    }
    let policy = catalogue();
    let scratch = Scratch::new();
    let file = scratch.write("p.toml", &show::policy(&policy));
    let mut list = String::new();
    for (path, value, probes) in policy.rows.iter().filter_map(probed) {
        list += &format!("{path}|{value}|{}\n", probes.join("|"));
    }
    let list = scratch.write("list", &list);
    let run = Run::new(&["python3", "-c", GUEST, &list]);
    let bare = isolated(&run);
    let wrapped = isolated(&run.under(&["-p", &file, "--carrier", "fuse"]));
    assert!(bare.lines().count() > 4000, "only {} probes", bare.lines().count());
    let exists: std::collections::HashSet<&str> =
        bare.lines().filter_map(|line| line.split(' ').next()).collect();
    let known: Vec<&str> =
        wrapped.lines().filter(|line| exists.contains(line.split(' ').next().unwrap_or(""))).collect();
    common::assert_same("the catalogue", &bare, &(known.join("\n") + "\n"));
}
