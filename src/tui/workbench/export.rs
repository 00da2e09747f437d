//! Figures, pictures of the screen and networks, written beside the main loop.

use std::io;

use super::Workbench;
use crate::export::Format;
use crate::figure::{Figure, Saved, Theme};
use crate::run::RunFolder;
use crate::tui::app::Page;
use crate::tui::export::{write_figure, write_picture, write_screen};
use crate::tui::terminal::Screen;
use crate::tui::{preview, view};

impl Workbench {
    /// Paints a figure beside the main loop: a frame must not wait for a PNG.
    pub(super) fn export_figure(&mut self, saved: Saved) {
        let folder = self.app.shown.folder.figures();
        let history = &self.app.shown.history;
        let behind = &self.app.shown.overlays;
        let figure = saved.figure(history, &self.app.shown.folder.log(), behind);
        let notes = crate::figure::notes(history);
        let name = format!("{}-{}", saved.figure.label(), history.step());
        self.export_beside(move || {
            let figure = figure().map_err(|e| e.to_string())?;
            write_figure(&saved, &figure, &notes, &folder, &name)?;
            Ok(format!(
                "exported {}.png, .svg, .pdf, .csv, .toml (p shows it)",
                folder.join(name).display()
            ))
        });
    }

    /// Paints the plots of a page that no log draws again.
    pub(super) fn export_picture(&mut self) {
        let app = &self.app;
        let (name, figure) = match app.page {
            Page::Microscope => (app.microscope.name(), app.microscope.figure.clone()),
            Page::Toy => ("toy".to_owned(), app.toy.figure.clone()),
            _ => {
                let scene = view::error_against_memory(app);
                let panels = vec![scene];
                let figure = Figure { panels, columns: 1 };
                ("error-against-memory".to_owned(), Some(figure))
            }
        };
        let Some(figure) = figure else {
            self.app.tell("there is nothing to export yet".into());
            return;
        };
        let look = (Theme::Light, app.paper.format(figure.panels.len()));
        let notes = crate::figure::notes(&app.shown.history);
        let folder = app.shown.folder.figures();
        self.export_beside(move || {
            write_picture(&figure, look, &notes, &folder, &name)?;
            Ok(format!(
                "exported {}.png, .svg, .pdf, .csv (p shows it)",
                folder.join(name).display()
            ))
        });
    }

    /// Writes files beside the main loop, and says what became of them.
    fn export_beside(&mut self, write: impl FnOnce() -> Result<String, String> + Send + 'static) {
        let done = self.exported.0.clone();
        let work = move || {
            let text = write().unwrap_or_else(|error| format!("not exported: {error}"));
            // A workbench that is closing no longer listens.
            let _ = done.send(text);
        };
        if let Err(error) = std::thread::Builder::new()
            .name("export".into())
            .spawn(work)
        {
            self.app.warn(format!("not exported: {error}"));
        }
    }

    /// Writes a run's network beside the main loop, into the run's folder.
    pub(super) fn export_network(&mut self, folder: RunFolder, format: Format) {
        self.app.tell(format!("writing {} ...", format.name()));
        self.export_beside(move || {
            let said = crate::export::beside_run(&folder, format).map_err(|e| e.to_string())?;
            // (The first line names the file and its size.)
            Ok(format!(
                "exported {}",
                said.lines().next().unwrap_or_default()
            ))
        });
    }

    pub(super) fn export_screen(&mut self, screen: &mut Screen) -> io::Result<()> {
        let mut cells = None;
        screen.draw(|frame| {
            view::draw(&self.app, frame);
            cells = Some(frame.buffer_mut().clone());
        })?;
        let Some(cells) = cells else { return Ok(()) };
        let folder = self.app.shown.folder.figures();
        let (page, step) = (self.app.page.title(), self.app.shown.history.step());
        let path = folder.join(format!("screen-{page}-{step}.png"));
        let theme = self.app.palette.theme;
        let notes = crate::figure::notes(&self.app.shown.history);
        match write_screen(&cells, &path, theme, &notes) {
            Ok(()) => self
                .app
                .tell(format!("exported {} and .svg (p shows it)", path.display())),
            Err(error) => self.app.warn(format!("not exported: {error}")),
        }
        Ok(())
    }

    /// Reads the newest picture beside the main loop.
    pub(super) fn preview(&mut self, screen: &Screen) -> io::Result<()> {
        let Some(path) = preview::newest_picture(&self.app.shown.folder.figures()) else {
            self.app
                .tell("no picture exported yet; x exports this page's plots".into());
            return Ok(());
        };
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let (cell, form) = (preview::cell_size(), preview::form_of_terminal(variable));
        let room = view::preview_room(screen.size()?);
        let done = self.previews.0.clone();
        let work = move || {
            // A workbench that is closing no longer listens.
            let _ = done.send(preview::open(path, room, cell, form));
        };
        let thread = std::thread::Builder::new().name("preview".into());
        if let Err(error) = thread.spawn(work) {
            self.app.warn(format!("no preview: {error}"));
        }
        Ok(())
    }
}
