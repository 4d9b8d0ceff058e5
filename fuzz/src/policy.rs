//! `policy_parse`.

use sysemu::policy::diagnostic::{Report, Source};
use sysemu::policy::{parse, show};

/// Any text is parsed or refused; what is accepted survives being printed and parsed again.
pub fn policy_parse(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut report = Report::default();
    let document = parse::parse(&Source::new("input", text.to_owned()), &mut report);
    if report.finish(()).is_err() {
        return;
    }
    for row in &document.rows {
        let printed = format!("schema = 1\n{}", show::row(row));
        let mut report = Report::default();
        let again = parse::parse(&Source::new("printed", printed.clone()), &mut report);
        if let Err(error) = report.finish(()) {
            panic!("{error}\n{printed}");
        }
        let [again] = &again.rows[..] else { panic!("one row became {}:\n{printed}", again.rows.len()) };
        assert_eq!(
            (&again.path, &again.what, again.mode, again.when),
            (&row.path, &row.what, row.mode, row.when)
        );
    }
}
