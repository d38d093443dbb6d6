//! Columns as Docker's CLI prints them, and the words for ages.

use std::io::{self, Write};
use std::time::Duration;

/// Rows of cells under a head. Columns are at least ten wide and three apart, as Go's tabwriter is told by Docker.
pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self(vec![head.map(str::to_owned).to_vec()])
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push(cells.to_vec());
    }

    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        const NARROWEST: usize = 10;
        let columns = self.0.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let longest = self.0.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
                (longest.unwrap_or(0) + 3).max(NARROWEST)
            })
            .collect();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}"));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `About an hour`, `3 days`: docker/go-units' words.
pub fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// An RFC 3339 time as an age (`2 days ago`); `N/A` where there is none.
pub fn ago(created: Option<&str>, now: jiff::Timestamp) -> String {
    let Some(created) = created.and_then(|text| text.parse::<jiff::Timestamp>().ok()) else {
        return "N/A".to_owned();
    };
    let seconds = (now.as_second() - created.as_second()).max(0);
    format!("{} ago", age(Duration::from_secs(seconds.unsigned_abs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_ten_wide_or_three_apart() {
        let mut table = Table::new(["A", "LONG", "C"]);
        table.row(["x".into(), "more than ten".into(), "z".into()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "A         LONG            C\nx         more than ten   z\n");
    }

    #[test]
    fn ages_in_docker_s_words() {
        let hour = 3600;
        for (seconds, words) in [
            (0, "Less than a second"),
            (45, "45 seconds"),
            (90, "About a minute"),
            (hour, "About an hour"),
            (30 * hour, "30 hours"),
            (72 * hour, "3 days"),
            (24 * 21 * hour, "3 weeks"),
            (24 * 100 * hour, "3 months"),
            (24 * 800 * hour, "2 years"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), words);
        }
    }
}
