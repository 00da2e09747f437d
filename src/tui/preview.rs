//! An exported picture, shown in the terminal: as pixels where it can, in half blocks elsewhere.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ratatui::layout::{Position, Rect, Size};
use ratatui_image::picker::{Picker, ProtocolType};
use ratatui_image::protocol::Protocol;
use ratatui_image::{FilterType, FontSize, Resize};

/// A picture, ready for the terminal.
pub(super) struct Preview {
    /// Where it lies.
    pub path: PathBuf,
    /// As the terminal takes it.
    pub picture: Protocol,
}

/// The newest PNG of a folder.
pub(super) fn newest_picture(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let pictures = entries.filter_map(|e| {
        let path = e.ok()?.path();
        let is_picture = path.extension().is_some_and(|e| e == "png");
        let when = path.metadata().and_then(|m| m.modified());
        is_picture.then(|| (when.unwrap_or(SystemTime::UNIX_EPOCH), path))
    });
    pictures.max().map(|(_, path)| path)
}

/// Reads a picture and fits it into so many cells of so many pixels.
///
/// # Errors
/// Where it cannot be read or the terminal's form cannot hold it.
pub(super) fn open(
    path: PathBuf,
    room: Size,
    cell: FontSize,
    form: ProtocolType,
) -> Result<Preview, String> {
    let name = path.display().to_string();
    let failed = |e: &dyn std::fmt::Display| format!("{name}: {e}");
    let picture = image::open(&path).map_err(|e| failed(&e))?;
    #[expect(
        deprecated,
        reason = "the other way asks the terminal and swallows keys until it answers"
    )]
    let mut picker = Picker::from_fontsize(cell);
    picker.set_protocol_type(form);
    let fit = Resize::Scale(Some(FilterType::Triangle));
    let room = Rect::from((Position::ORIGIN, room));
    let picture = picker
        .new_protocol(picture, room, fit)
        .map_err(|e| failed(&e))?;
    Ok(Preview { path, picture })
}

/// Pixels of a cell, where the terminal tells; a common size elsewhere.
pub(super) fn cell_size() -> FontSize {
    match ratatui::crossterm::terminal::window_size() {
        Ok(w) if w.width > 0 && w.height > 0 && w.columns > 0 && w.rows > 0 => {
            ((w.width / w.columns).max(1), (w.height / w.rows).max(1))
        }
        _ => (10, 20),
    }
}

/// How this terminal takes pictures, by its environment; `BITSCOPE_IMAGES` (`kitty`, `sixel`,
/// `iterm2`, `blocks`) says otherwise.
pub(super) fn form_of_terminal(variable: impl Fn(&str) -> String) -> ProtocolType {
    match variable("BITSCOPE_IMAGES").as_str() {
        "kitty" => return ProtocolType::Kitty,
        "sixel" => return ProtocolType::Sixel,
        "iterm2" => return ProtocolType::Iterm2,
        "blocks" => return ProtocolType::Halfblocks,
        _ => {}
    }
    // A multiplexer draws cells of its own; what lies outside is not to be relied on.
    if !variable("TMUX").is_empty() || !variable("STY").is_empty() {
        return ProtocolType::Halfblocks;
    }
    let (term, program) = (variable("TERM"), variable("TERM_PROGRAM"));
    if term == "xterm-kitty" || term == "xterm-ghostty" || program == "ghostty" {
        return ProtocolType::Kitty;
    }
    if ["iTerm.app", "WezTerm", "mintty"].contains(&program.as_str()) {
        return ProtocolType::Iterm2;
    }
    if ["foot", "mlterm", "contour"]
        .iter()
        .any(|t| term.starts_with(t))
    {
        return ProtocolType::Sixel;
    }
    ProtocolType::Halfblocks
}

#[cfg(test)]
mod tests {
    use ratatui::buffer::Buffer;
    use ratatui::widgets::Widget;
    use ratatui_image::Image;

    use super::*;

    fn picture(folder: &Path) -> PathBuf {
        let path = folder.join("figure.png");
        let red = [200, 20, 10].repeat(80 * 80);
        crate::figure::write_png(&path, &red, (80, 80), &[]).expect("written");
        path
    }

    #[test]
    fn the_environment_decides_and_the_user_overrules_it() {
        let form = |set: &'static [(&str, &str)]| {
            form_of_terminal(|name| {
                let found = set.iter().find(|(n, _)| *n == name);
                found.map_or(String::new(), |(_, v)| (*v).to_owned())
            })
        };
        assert_eq!(
            form(&[("TERM", "xterm-256color")]),
            ProtocolType::Halfblocks
        );
        assert_eq!(form(&[("TERM", "xterm-kitty")]), ProtocolType::Kitty);
        assert_eq!(form(&[("TERM_PROGRAM", "WezTerm")]), ProtocolType::Iterm2);
        assert_eq!(form(&[("TERM", "foot-extra")]), ProtocolType::Sixel);
        let inside = &[("TERM", "xterm-kitty"), ("TMUX", "/tmp/tmux")];
        assert_eq!(form(inside), ProtocolType::Halfblocks);
        let told = &[("TMUX", "/tmp/tmux"), ("BITSCOPE_IMAGES", "sixel")];
        assert_eq!(form(told), ProtocolType::Sixel);
    }

    #[test]
    fn every_form_holds_the_picture() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = picture(folder.path());
        assert_eq!(newest_picture(folder.path()), Some(path.clone()));
        for (form, mark) in [
            (ProtocolType::Halfblocks, ""),
            (ProtocolType::Kitty, "\x1b_G"),
            (ProtocolType::Sixel, "\x1bP"),
            (ProtocolType::Iterm2, "\x1b]1337;"),
        ] {
            let room = Size::new(20, 10);
            let preview = open(path.clone(), room, (10, 20), form).expect("readable");
            let area = Rect::new(0, 0, 20, 10);
            let mut buffer = Buffer::empty(area);
            Image::new(&preview.picture).render(area, &mut buffer);
            let cell = &buffer[(2, 2)];
            if mark.is_empty() {
                assert_eq!(cell.fg, ratatui::style::Color::Rgb(200, 20, 10));
            } else {
                let all: String = buffer.content.iter().map(|c| c.symbol()).collect();
                assert!(all.contains(mark), "{form:?}");
            }
        }
    }

    #[test]
    fn a_file_that_is_no_picture_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.png");
        std::fs::write(&path, "no picture").expect("written");
        let (room, cell) = (Size::new(20, 10), (10, 20));
        let error = open(path, room, cell, ProtocolType::Halfblocks).err();
        assert!(error.is_some_and(|e| e.contains("x.png")));
    }
}
