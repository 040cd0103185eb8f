//! The terminal that `khala top` draws on. In: screens. Out: what its keys wish for.
//! Invariant: dropped, it leaves the terminal as it was; a panic does too (ratatui's hook).

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::{Screen, screen};

/// Looks remembered for the curve.
const LOOKS: usize = 240;
/// Keys not yet looked at.
const KEYS: usize = 16;
/// Lines that a page key moves by.
const PAGE: usize = 10;

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    End,
    Redraw,
}

pub(super) struct Terminal {
    inner: DefaultTerminal,
    keys: mpsc::Receiver<Event>,
    /// Events a second, the newest last.
    rates: VecDeque<u64>,
    /// The first partition shown.
    top: usize,
}

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        let inner = ratatui::try_init()?;
        let (sender, keys) = mpsc::channel(KEYS);
        // It ends with the process: a read of the keyboard cannot be called off.
        std::thread::Builder::new()
            .name("khala-keys".to_owned())
            .spawn(move || {
                while let Ok(event) = event::read() {
                    if sender.blocking_send(event).is_err() {
                        return;
                    }
                }
            })?;
        let (rates, top) = (VecDeque::new(), 0);
        Ok(Self {
            inner,
            keys,
            rates,
            top,
        })
    }

    pub(super) fn remember(&mut self, events_per_second: f64) {
        if self.rates.len() == LOOKS {
            self.rates.pop_front();
        }
        self.rates.push_back(events_per_second.round() as u64);
    }

    pub(super) fn draw(&mut self, shown: &Screen, trouble: Option<&str>, every: Duration) -> io::Result<()> {
        self.top = self.top.min(shown.partitions.len().saturating_sub(1));
        let view = screen::View {
            shown,
            trouble,
            every,
            rates: self.rates.make_contiguous(),
            top: self.top,
        };
        self.inner.draw(|frame| screen::draw(&view, frame)).map(|_| ())
    }

    /// The next key that means something; pending for ever if the keyboard is gone.
    pub(super) async fn wish(&mut self) -> Wish {
        loop {
            match self.keys.recv().await {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if let Some(wish) = self.press(key) {
                        return wish;
                    }
                }
                Some(Event::Resize(..)) => return Wish::Redraw,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn press(&mut self, key: KeyEvent) -> Option<Wish> {
        let top = match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Wish::End),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Some(Wish::End),
            KeyCode::Down | KeyCode::Char('j') => self.top + 1,
            KeyCode::Up | KeyCode::Char('k') => self.top.saturating_sub(1),
            KeyCode::PageDown => self.top + PAGE,
            KeyCode::PageUp => self.top.saturating_sub(PAGE),
            KeyCode::Home => 0,
            _ => return None,
        };
        self.top = top;
        Some(Wish::Redraw)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
