//! The parts of a report to which a line belongs.

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Backscatter,
    Reflector,
    Harvest,
    Unsigned,
}

/// The parts of the report in which an event counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sections(u8);

impl Sections {
    pub(super) fn of(section: Section, counts: bool) -> Self {
        Self(u8::from(counts) << (section as u8))
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn has(self, section: Section) -> bool {
        self.0 & (1 << (section as u8)) != 0
    }
}
