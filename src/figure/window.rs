//! The part of a longer list that is seen.

/// The part of a list that is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Of how many.
    pub of: usize,
}

impl Window {
    /// So many of a list with one of them in the middle, as far as the list goes.
    pub fn around(focus: usize, of: usize, room: usize) -> Self {
        let count = of.min(room);
        let first = focus.saturating_sub(count / 2).min(of - count);
        Self { first, count, of }
    }

    /// Places of what is seen.
    pub fn range(self) -> std::ops::Range<usize> {
        self.first..self.first + self.count
    }

    /// `1–29 of 139` where not all is seen.
    pub fn text(self) -> Option<String> {
        let (first, last) = (self.first + 1, self.first + self.count);
        (self.count < self.of).then(|| format!("{first}–{last} of {}", self.of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_its_focus_and_says_what_it_shows() {
        for of in 0..40 {
            for room in 0..12 {
                for focus in 0..of {
                    let window = Window::around(focus, of, room);
                    let range = window.range();
                    assert!(range.end <= of && range.len() == of.min(room));
                    assert!(
                        room == 0 || range.contains(&focus),
                        "{focus} of {of} in {room}"
                    );
                }
            }
        }
        let text = Window::around(0, 139, 29).text();
        assert_eq!(text.as_deref(), Some("1–29 of 139"));
        assert_eq!(Window::around(3, 9, 10).text(), None);
    }
}
