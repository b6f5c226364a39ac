pub enum ParseError {
    Empty,
    BadDigit { at: usize, found: char },
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "nothing to parse"),
            Self::BadDigit { at, found } => write!(f, "{found:?} at {at} is no digit"),
        }
    }
}
