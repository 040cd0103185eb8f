//! How `khala top` looks at a terminal. In: a screen's facts. Out: cells. Invariant: no colour says what a word does not.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Cell, Paragraph, Row, Sparkline, Table};

use super::{PartitionLine, Screen};

/// Held partitions told in words; the table has all.
const ALERTS: usize = 3;
/// Cells of the bar of lag.
const BAR: usize = 12;

pub(super) struct View<'a> {
    pub shown: &'a Screen,
    /// Why there is nothing newer.
    pub trouble: Option<&'a str>,
    pub every: Duration,
    pub rates: &'a [u64],
    /// The first partition shown.
    pub top: usize,
}

pub(super) fn draw(view: &View<'_>, frame: &mut Frame<'_>) {
    let alerts = alerts(view);
    let runs = view.shown.hottest_runs.len().max(1) as u16 + 3;
    let rows = view.shown.partitions.len() as u16 + 3;
    let [head, told, partitions, runs, _, foot] = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(alerts.len() as u16),
        Constraint::Max(rows),
        Constraint::Max(runs),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(view, frame, head);
    frame.render_widget(Paragraph::new(alerts), told);
    draw_partitions(view, frame, partitions);
    draw_runs(view, frame, runs);
    let keys = format!(" q ends   ↑ ↓ partitions   a look every {:?}", view.every);
    frame.render_widget(Line::from(keys).dim(), foot);
}

fn block(title: String) -> Block<'static> {
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(Style::new().dim())
        .title(title.bold())
}

fn draw_head(view: &View<'_>, frame: &mut Frame<'_>, area: Rect) {
    let shown = view.shown;
    let state = match view.trouble {
        Some(_) => " no answer ".black().on_red(),
        None => " live ".green(),
    };
    let title = format!(" Khala · {} · {} ", shown.namespace, shown.topic);
    let frame_of_head = block(title).title(Line::from(state).alignment(Alignment::Right));
    let inner = frame_of_head.inner(area);
    frame.render_widget(frame_of_head, area);
    let [facts, curve] = Layout::horizontal([Constraint::Min(44), Constraint::Percentage(35)]).areas(inner);
    let oldest = shown.partitions.iter().map(|line| line.lag_seconds).fold(0.0, f64::max);
    let letters = format!("{} (+{})", grouped(shown.dead_letters), grouped(shown.new_dead_letters));
    let lines = vec![
        Line::from(vec![
            format!(" {:>9.1}", shown.events_per_second).bold(),
            " events/s   behind ".into(),
            grouped(shown.lag_events).bold(),
            format!(" ({oldest:.1} s)").into(),
        ]),
        Line::from(vec![
            " dead letters ".into(),
            if shown.new_dead_letters > 0 {
                letters.red()
            } else {
                letters.into()
            },
            format!("   duplicates {}", grouped(shown.duplicates)).into(),
        ]),
    ];
    frame.render_widget(Paragraph::new(lines), facts);
    let newest = view.rates.len().saturating_sub(curve.width.into());
    frame.render_widget(
        Sparkline::default().data(&view.rates[newest..]).style(Color::Cyan),
        curve,
    );
}

/// What needs a person, in words.
fn alerts(view: &View<'_>) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = view
        .trouble
        .map(|why| Line::from(format!(" {why}")).red())
        .into_iter()
        .collect();
    let wrong = view
        .shown
        .partitions
        .iter()
        .filter(|line| matches!(&*line.state, "held" | "retrying"));
    for line in wrong.clone().take(ALERTS) {
        let what = format!(" partition {} is {}", line.partition, line.state);
        let why = line
            .detail
            .as_ref()
            .or(line.reason.as_ref())
            .map_or(String::new(), |why| format!(": {why}"));
        lines.push(Line::from(vec![
            Span::styled(what, tone(&line.state).add_modifier(Modifier::BOLD)),
            why.into(),
        ]));
    }
    if wrong.clone().count() > ALERTS {
        lines.push(Line::from(format!(" … and {} more", wrong.count() - ALERTS)));
    }
    lines
}

fn draw_partitions(view: &View<'_>, frame: &mut Frame<'_>, area: Rect) {
    let all = &view.shown.partitions;
    let most = all.iter().map(|line| line.lag_events).max().unwrap_or(0).max(1);
    let title = match view.top {
        0 => format!(" {} partitions ", all.len()),
        top => format!(" {} partitions, from the {}th ", all.len(), top + 1),
    };
    let rows = all.iter().skip(view.top).map(|line| row(line, most));
    let widths = [
        Constraint::Length(9),
        Constraint::Length(10),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(BAR as u16),
        Constraint::Length(9),
        Constraint::Length(6),
        Constraint::Fill(1),
    ];
    let heads = [
        "partition",
        "state",
        "events/s",
        "behind",
        "",
        "oldest",
        "parked",
        "reason",
    ];
    let table = Table::new(rows, widths)
        .header(header(&heads, &[0, 2, 3, 5, 6]))
        .block(block(title));
    frame.render_widget(table, area);
}

fn row(line: &PartitionLine, most: u64) -> Row<'static> {
    let cells = (line.lag_events as f64 / most as f64 * BAR as f64).ceil() as usize;
    let parked = if line.parked > 0 {
        line.parked.to_string()
    } else {
        String::new()
    };
    Row::new([
        right(line.partition.to_string()),
        Cell::from(line.state.clone()).style(tone(&line.state)),
        right(format!("{:.1}", line.events_per_second)),
        right(grouped(line.lag_events)),
        Cell::from("▇".repeat(cells.min(BAR))).yellow(),
        right(format!("{:.1} s", line.lag_seconds)),
        right(parked),
        Cell::from(line.reason.clone().unwrap_or_default()),
    ])
}

fn draw_runs(view: &View<'_>, frame: &mut Frame<'_>, area: Rect) {
    let runs = &view.shown.hottest_runs;
    if runs.is_empty() {
        let quiet = Paragraph::new(" No run had an event since the last look.").dim();
        return frame.render_widget(quiet.block(block(" Hottest runs ".to_owned())), area);
    }
    let rows = runs.iter().map(|run| {
        Row::new([
            Cell::from(format!(" {}", run.run_id)),
            Cell::from(run.status.clone()).style(tone(&run.status)),
            right(grouped(run.events)),
            right(format!("{:.1}", run.events_per_second)),
        ])
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(10),
        Constraint::Length(11),
        Constraint::Length(11),
    ];
    let heads = [" run", "status", "events", "events/s"];
    let table = Table::new(rows, widths)
        .header(header(&heads, &[2, 3]))
        .block(block(" Hottest runs ".to_owned()));
    frame.render_widget(table, area);
}

fn header(names: &[&'static str], numbers: &[usize]) -> Row<'static> {
    let cell = |(i, name): (usize, &&'static str)| {
        if numbers.contains(&i) {
            right((*name).to_owned())
        } else {
            Cell::from(*name)
        }
    };
    Row::new(names.iter().enumerate().map(cell)).dim()
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

fn tone(state: &str) -> Style {
    match state {
        "running" | "succeeded" => Style::new().fg(Color::Green),
        "held" | "failed" => Style::new().fg(Color::Red),
        "retrying" | "recovering" | "canceling" => Style::new().fg(Color::Yellow),
        _ => Style::new(),
    }
}

/// With a comma between thousands.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::RunLine;
    use super::*;

    fn partition(partition: u32, state: &str, lag_events: u64) -> PartitionLine {
        let is_held = state == "held";
        PartitionLine {
            partition,
            state: state.to_owned(),
            reason: is_held.then(|| "log_replaced".to_owned()),
            detail: is_held.then(|| "the topic was made anew: `khala config check --connect`".to_owned()),
            events_per_second: 12.5,
            lag_events,
            lag_seconds: 0.0,
            parked: 0,
        }
    }

    fn drawn(trouble: Option<&str>, width: u16) -> String {
        let shown = Screen {
            namespace: "main".to_owned(),
            topic: "khala.events".to_owned(),
            events_per_second: 1234.5,
            lag_events: 1_234_567,
            duplicates: 3,
            dead_letters: 1000,
            new_dead_letters: 0,
            partitions: vec![partition(7, "held", 1_234_000), partition(0, "running", 567)],
            hottest_runs: vec![RunLine {
                run_id: "run_1".to_owned(),
                status: "running".to_owned(),
                events: 4096,
                events_per_second: 80.0,
            }],
        };
        let view = View {
            shown: &shown,
            trouble,
            every: Duration::from_secs(2),
            rates: &[1, 2, 4, 8],
            top: 0,
        };
        let mut terminal = Terminal::new(TestBackend::new(width, 24)).expect("a backend");
        terminal.draw(|frame| draw(&view, frame)).expect("drawn");
        terminal.backend().to_string()
    }

    #[test]
    fn a_screen_tells_what_is_wrong_first_and_in_words() {
        let told = drawn(None, 100);
        for words in [
            "partition 7 is held: the topic was made anew: `khala config check --connect`",
            "1,234,567",
            "1234.5 events/s",
            "1,000 (+0)",
            "run_1",
            "4,096",
            " live ",
        ] {
            assert!(told.contains(words), "no {words:?} in\n{told}");
        }
        assert!(told.find("held") < told.find("running"), "{told}");
        assert!(!told.contains("no answer"));
    }

    #[test]
    fn a_server_that_does_not_answer_is_named_and_a_narrow_terminal_is_no_panic() {
        let told = drawn(Some("http://localhost:7600: connection refused"), 100);
        assert!(
            told.contains("no answer") && told.contains("connection refused"),
            "{told}"
        );
        assert!(drawn(Some("away"), 20).contains("Khala"));
    }
}
