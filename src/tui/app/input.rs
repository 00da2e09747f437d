//! Keys and mouse.

use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::super::keymap::{Action, action};
use super::super::palette;
use super::{App, Effect, Layer, Overlay, Page, Typed};

/// What a key does to a line that is being typed, as in a shell; `false` where it is for someone else.
fn edit_line(text: &mut String, key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('u') if control => text.clear(),
        KeyCode::Char('w') if control => {
            let kept = text.trim_end().rfind(char::is_whitespace);
            text.truncate(kept.map_or(0, |at| at + 1));
        }
        KeyCode::Char('h') if control => drop(text.pop()),
        KeyCode::Char(_) if control || key.modifiers.contains(KeyModifiers::ALT) => return false,
        KeyCode::Char(c) => text.push(c),
        KeyCode::Backspace => drop(text.pop()),
        _ => return false,
    }
    true
}

/// Lines that what lies over the page is scrolled by at most.
const FARTHEST: usize = 60;

impl App {
    /// Text that was pasted: into the line that is being typed, without its line ends.
    pub(in crate::tui) fn paste(&mut self, pasted: &str) {
        let plain: String = pasted.chars().filter(|c| !c.is_control()).collect();
        if let Some(command) = self.layers.palette_mut() {
            command.text.push_str(&plain);
            command.chosen = 0;
        } else if self.layers.filter().is_some() {
            for c in plain.chars() {
                self.type_filter(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
            }
        }
    }

    /// A key: for what lies on top, or the page.
    pub(in crate::tui) fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        match self.layers.top() {
            Some(Layer::Preview(_)) => {
                self.layers.take_preview();
                vec![Effect::Repaint]
            }
            Some(Layer::Palette(_)) => self.command_key(key),
            Some(Layer::Filter(_)) => {
                self.type_filter(key);
                Vec::new()
            }
            Some(Layer::Overlay(_)) => self.overlay_key(key),
            None => action(key).map_or(Vec::new(), |action| self.perform(action)),
        }
    }

    /// A key while a question, or something to read, lies over the page.
    fn overlay_key(&mut self, key: KeyEvent) -> Vec<Effect> {
        let Some(action) = action(key) else {
            if let Some(Overlay::Help | Overlay::Diagnostic) = self.layers.overlay() {
                self.layers.take_overlay();
                self.scroll = 0;
                return Vec::new();
            }
            return self.answer(key.code);
        };
        match self.layers.overlay() {
            // Asked twice is meant.
            Some(Overlay::ConfirmQuit)
                if action == Action::Quit && key.modifiers == KeyModifiers::CONTROL =>
            {
                vec![Effect::Quit]
            }
            Some(Overlay::Help | Overlay::Diagnostic)
                if matches!(action, Action::Down | Action::Up) =>
            {
                self.scroll = match action {
                    Action::Down => (self.scroll + 1).min(FARTHEST),
                    _ => self.scroll.saturating_sub(1),
                };
                Vec::new()
            }
            Some(Overlay::Help | Overlay::Diagnostic) if action != Action::Quit => {
                self.layers.take_overlay();
                self.scroll = 0;
                Vec::new()
            }
            Some(Overlay::Help | Overlay::Diagnostic) | None => self.perform(action),
            Some(
                Overlay::ConfirmQuit
                | Overlay::ConfirmNewRun(_)
                | Overlay::ConfirmFork { .. }
                | Overlay::ConfirmDelete { .. },
            ) => self.answer(key.code),
        }
    }

    /// Answers a question: y or n.
    pub(super) fn answer(&mut self, code: KeyCode) -> Vec<Effect> {
        let yes = matches!(code, KeyCode::Char('y' | 'Y') | KeyCode::Enter);
        let no = matches!(code, KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc);
        match self.layers.take_overlay() {
            Some(Overlay::ConfirmQuit) if yes => vec![Effect::Quit],
            Some(Overlay::ConfirmNewRun(pending)) if yes => self.apply(*pending),
            Some(Overlay::ConfirmFork { loaded, step }) if yes => {
                vec![Effect::Fork { loaded, step }]
            }
            Some(Overlay::ConfirmDelete { folder, .. }) if yes => {
                self.delete_run(&folder);
                Vec::new()
            }
            Some(Overlay::ConfirmNewRun(pending)) if no => {
                self.editing.refused = Some(pending);
                self.editing.undoing = None;
                self.tell("kept the run; `a` asks again, `u` takes the change back".into());
                Vec::new()
            }
            Some(overlay) if !no => {
                self.ask(overlay);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn type_filter(&mut self, key: KeyEvent) {
        let Some(text) = self.layers.filter_mut() else {
            return;
        };
        let edited = edit_line(text, key);
        match key.code {
            _ if edited => {}
            KeyCode::Char('c') if key.modifiers == KeyModifiers::CONTROL => {
                self.layers.take_filter();
                return;
            }
            KeyCode::Enter => {
                self.layers.take_filter();
                return;
            }
            KeyCode::Esc => {
                self.layers.take_filter();
                if self.page == Page::Runs {
                    self.runs.filter.clear();
                    self.list_runs();
                } else {
                    self.view.filter.clear();
                }
                return;
            }
            _ => return,
        }
        let text = text.clone();
        self.selected = 0;
        if self.page == Page::Runs {
            self.runs.filter = text;
            self.list_runs();
        } else {
            self.view.filter = text;
        }
    }

    /// A key while the palette is open.
    pub(super) fn command_key(&mut self, key: KeyEvent) -> Vec<Effect> {
        let Some(command) = self.layers.palette_mut() else {
            return Vec::new();
        };
        if edit_line(&mut command.text, key) {
            command.chosen = 0;
            return Vec::new();
        }
        match key.code {
            KeyCode::Esc => drop(self.layers.take_palette()),
            KeyCode::Char('c') if key.modifiers == KeyModifiers::CONTROL => {
                self.layers.take_palette();
            }
            KeyCode::Down => command.chosen += 1,
            KeyCode::Up => command.chosen = command.chosen.saturating_sub(1),
            KeyCode::Tab | KeyCode::Enter => {
                let (text, chosen) = (command.text.clone(), command.chosen);
                let entries = palette::entries(self, &text);
                let entry = entries.get(chosen.min(entries.len().saturating_sub(1)));
                let completed = entry.map_or(text.clone(), |e| e.text.clone());
                // A value behind `set KEY`, and a name behind `rename`, are the user's own.
                let text = match text.split_once(' ') {
                    Some(("set", rest)) if rest.trim().contains(' ') => text.trim_end().to_owned(),
                    _ => text,
                };
                let own = match text.split_once(' ') {
                    Some(("set", rest)) => rest.trim().contains(' '),
                    Some(("rename", rest)) => !rest.trim().is_empty(),
                    _ => false,
                };
                if key.code == KeyCode::Tab || (completed.ends_with(' ') && !own) {
                    if !own {
                        self.layers.put(Layer::Palette(Typed {
                            text: completed,
                            chosen: 0,
                        }));
                    }
                    return Vec::new();
                }
                self.layers.take_palette();
                let text = if own { text } else { completed };
                return palette::execute(self, &text);
            }
            _ => {}
        }
        Vec::new()
    }

    /// A wheel, a drag or a click.
    pub(in crate::tui) fn mouse(&mut self, event: MouseEvent) -> Vec<Effect> {
        if self.layers.top().is_some() {
            // What lies beneath a dialog is not meant.
            return Vec::new();
        }
        let shift = event.modifiers.contains(KeyModifiers::SHIFT);
        match event.kind {
            MouseEventKind::ScrollUp if shift => self.zoom.pan(-0.1, &self.shown.history),
            MouseEventKind::ScrollDown if shift => self.zoom.pan(0.1, &self.shown.history),
            MouseEventKind::ScrollUp => self.zoom.by(0.8, &self.shown.history),
            MouseEventKind::ScrollDown => self.zoom.by(1.25, &self.shown.history),
            MouseEventKind::Down(MouseButton::Left) => {
                self.dragged = event.column;
                let tab = super::super::view::tab_at(self.width, event.column);
                if let Some(page) = tab.filter(|_| event.row == 1) {
                    self.go_to(page);
                }
            }
            MouseEventKind::Drag(MouseButton::Left) => {
                let moved = f64::from(self.dragged) - f64::from(event.column);
                self.dragged = event.column;
                self.zoom.pan(moved / 80.0, &self.shown.history);
            }
            _ => {}
        }
        Vec::new()
    }
}
