//! What looking at the virtual tree costs by itself, with few rows and with many: no kernel is involved.
//!
//! The cost of intercepted calls is measured by `sysemu bench`.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use sysemu::emulator::tree::Tree;
use sysemu::policy::{Content, Origin, Policy, Row, What};

fn tree(rows: usize) -> Tree {
    let row = |number: usize| {
        let path = format!("/proc/sys/bench/n{}/k{number}", number % 100);
        Row::new(path, What::file(Content::Fixed("1\n".into())), 0o644, Origin::synthetic("bench"))
    };
    let policy = Policy { rows: (0..rows).map(row).collect(), ..Policy::default() };
    Tree::build(&policy, Path::new("/sys"))
}

fn lookups(criterion: &mut Criterion) {
    for rows in [100, 100_000] {
        let tree = tree(rows);
        criterion.bench_function(&format!("certain file among {rows} rows"), |bencher| {
            bencher.iter(|| black_box(tree.certain_file(black_box("/proc/sys/bench/n42/k42"))));
        });
        criterion.bench_function(&format!("walk to a file among {rows} rows"), |bencher| {
            bencher.iter(|| black_box(tree.entry(&tree.at(black_box("/proc/sys/bench/n42/k42")))));
        });
        criterion.bench_function(&format!("miss among {rows} rows"), |bencher| {
            bencher.iter(|| black_box(tree.at(black_box("/proc/sys/bench/none/k42")).is_empty()));
        });
    }
}

criterion_group!(benches, lookups);
criterion_main!(benches);
