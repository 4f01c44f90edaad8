//! The words that pick certificates (tui.md §2.5): one grammar for lists, for bulk acts and for the dashboard. Parsed once,
//! then asked about each certificate. Pure; called by `rpc`.
//!
//! ```text
//!  api                    part of the name or of an identifier; case does not matter
//!  !api                   not
//!  issuer:le,lab          any of; also key, status, deployment, custody, agent, name; != is none of
//!  label:role=web         a target's agent has the label
//!  expires<7d renews>12h  how long from now: d, h, m
//!  (a or b) !c            a space means and
//! ```

use jiff::{SignedDuration, Timestamp};

use super::certificate::{Custody, KeyType, Status};
use super::deployment::Deployment;

/// Longest filter, characters.
pub const FILTER_CHARS_MAX: usize = 500;
/// Deepest nesting.
const DEPTH_MAX: usize = 16;
/// A hundred years: longer is a typing error.
const HOURS_MAX: i64 = 24 * 366 * 100;

/// What a certificate shows to a filter. Issuer and key are those of the current version, else those wanted.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its names at the CA.
    pub identifiers: &'a [String],
    /// Name of the issuer.
    pub issuer: &'a str,
    /// Key algorithm.
    pub key: KeyType,
    /// Where the key lives.
    pub custody: Custody,
    /// How it stands.
    pub status: Status,
    /// How its targets stand.
    pub deployment: Deployment,
    /// Names of its targets' agents.
    pub agents: &'a [String],
    /// Their labels.
    pub labels: &'a [String],
    /// End of the current version.
    pub expires_at: Option<Timestamp>,
    /// When it renews by itself.
    pub renews_at: Option<Timestamp>,
}

/// A parsed filter; the default finds everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Expression);

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// Character at which it goes wrong, from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
    /// What could stand there.
    pub hint: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Text(String),
    Is(Field, Vec<String>),
    Within(Moment, SignedDuration),
    Beyond(Moment, SignedDuration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Issuer,
    Key,
    Status,
    Deployment,
    Custody,
    Agent,
    Label,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Expires,
    Renews,
}

impl Default for Filter {
    fn default() -> Self {
        Self(Expression::All(Vec::new()))
    }
}

impl Filter {
    /// Reads a filter; an empty one finds everything.
    ///
    /// # Errors
    /// When it does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.chars().count() > FILTER_CHARS_MAX {
            let hint = format!("at most {FILTER_CHARS_MAX} characters");
            return Err(FilterError { column: FILTER_CHARS_MAX, message: "it is too long".to_owned(), hint });
        }
        let mut parser = Parser { tokens: tokens(text), at: 0, end: text.chars().count() + 1 };
        let found = parser.alternatives(0)?;
        match parser.peek() {
            None => Ok(Self(found)),
            Some(token) => Err(wrong(token.column, "a bracket too many", "each ( has its )")),
        }
    }

    /// Whether it finds this certificate.
    #[must_use]
    pub fn finds(&self, subject: &Subject<'_>, now: Timestamp) -> bool {
        self.0.holds(subject, now)
    }
}

impl Expression {
    fn holds(&self, subject: &Subject<'_>, now: Timestamp) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(subject, now)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(subject, now)),
            Self::Not(part) => !part.holds(subject, now),
            Self::Text(text) => {
                subject.name.to_lowercase().contains(text) || subject.identifiers.iter().any(|one| one.contains(text))
            }
            Self::Is(field, values) => values.iter().any(|value| field.is(subject, value)),
            Self::Within(moment, span) => moment.of(subject).is_some_and(|at| at.duration_since(now) < *span),
            Self::Beyond(moment, span) => moment.of(subject).is_some_and(|at| at.duration_since(now) > *span),
        }
    }
}

impl Moment {
    fn of(self, subject: &Subject<'_>) -> Option<Timestamp> {
        match self {
            Self::Expires => subject.expires_at,
            Self::Renews => subject.renews_at,
        }
    }
}

impl Field {
    const ALL: [(&'static str, Self); 8] = [
        ("name", Self::Name),
        ("issuer", Self::Issuer),
        ("key", Self::Key),
        ("status", Self::Status),
        ("deployment", Self::Deployment),
        ("custody", Self::Custody),
        ("agent", Self::Agent),
        ("label", Self::Label),
    ];

    fn is(self, subject: &Subject<'_>, value: &str) -> bool {
        match self {
            Self::Name => subject.name.to_lowercase() == value,
            Self::Issuer => subject.issuer.to_lowercase() == value,
            Self::Key => subject.key.word() == value,
            Self::Status => subject.status.word() == value,
            Self::Deployment => subject.deployment.word() == value,
            Self::Custody => subject.custody.word() == value,
            Self::Agent => subject.agents.iter().any(|agent| agent.to_lowercase() == value),
            Self::Label => subject.labels.iter().any(|label| label == value),
        }
    }

    /// The words a value may be; empty where it may be any.
    fn words(self) -> Vec<&'static str> {
        match self {
            Self::Name | Self::Issuer | Self::Agent | Self::Label => Vec::new(),
            Self::Key => KeyType::ALL.map(KeyType::word).to_vec(),
            Self::Status => Status::ALL.map(Status::word).to_vec(),
            Self::Deployment => Deployment::ALL.map(Deployment::word).to_vec(),
            Self::Custody => vec![Custody::Agent.word(), Custody::Controller.word()],
        }
    }
}

#[derive(Clone, Debug)]
struct Token {
    column: usize,
    text: String,
}

/// Words and brackets, in lower case.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut open = false;
    for (index, char) in text.chars().enumerate() {
        let column = index + 1;
        // What stands after a !, or in brackets, is a token of its own.
        if matches!(char, '(' | ')') || (char == '!' && !open) {
            tokens.push(Token { column, text: char.to_string() });
            open = false;
        } else if char.is_whitespace() {
            open = false;
        } else {
            match tokens.last_mut().filter(|_| open) {
                Some(token) => token.text.extend(char.to_lowercase()),
                None => tokens.push(Token { column, text: char.to_lowercase().collect() }),
            }
            open = true;
        }
    }
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.text == text);
        self.at += usize::from(found);
        found
    }

    fn alternatives(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let first = self.conjunction(depth)?;
        let mut parts = vec![first];
        while self.take("or") {
            parts.push(self.conjunction(depth)?);
        }
        if parts.len() > 1 && parts.iter().any(|part| *part == Expression::All(Vec::new())) {
            return Err(wrong(self.column(), "`or` stands between two conditions", "a or b"));
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Any(parts) })
    }

    fn conjunction(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let mut parts = Vec::new();
        while self.peek().is_some_and(|token| token.text != ")" && token.text != "or") {
            if !self.take("and") {
                parts.push(self.single(depth)?);
            }
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::All(parts) })
    }

    fn single(&mut self, depth: usize) -> Result<Expression, FilterError> {
        if depth > DEPTH_MAX {
            return Err(wrong(self.column(), "it is nested too deeply", "fewer brackets"));
        }
        if self.take("!") {
            return Ok(Expression::Not(Box::new(self.single(depth + 1)?)));
        }
        let column = self.column();
        if self.take("(") {
            let inner = self.alternatives(depth + 1)?;
            let empty = inner == Expression::All(Vec::new());
            return if empty || !self.take(")") {
                Err(wrong(column, "a bracket is empty or not closed", "each ( has its )"))
            } else {
                Ok(inner)
            };
        }
        let Some(token) = self.tokens.get(self.at).filter(|token| token.text != ")").cloned() else {
            return Err(wrong(column, "something is missing here", "a word, or a condition like status:failed"));
        };
        self.at += 1;
        condition(&token)
    }

    fn column(&self) -> usize {
        self.peek().map_or(self.end, |token| token.column)
    }
}

fn wrong(column: usize, message: impl Into<String>, hint: impl Into<String>) -> FilterError {
    FilterError { column, message: message.into(), hint: hint.into() }
}

/// A condition, or a part of a name. What stands before the sign must be a field, unless it can only be an address.
fn condition(token: &Token) -> Result<Expression, FilterError> {
    let sign = token.text.find([':', '=', '<', '>', '!']);
    let Some((field, rest)) = sign.and_then(|at| token.text.split_at_checked(at)) else {
        return Ok(Expression::Text(token.text.clone()));
    };
    if !field.bytes().all(|byte| byte.is_ascii_lowercase()) || field.is_empty() {
        return Ok(Expression::Text(token.text.clone()));
    }
    let moment = match field {
        "expires" => Some(Moment::Expires),
        "renews" => Some(Moment::Renews),
        _ => None,
    };
    if let Some(moment) = moment {
        return match (rest.strip_prefix('<'), rest.strip_prefix('>')) {
            (Some(span), _) => Ok(Expression::Within(moment, duration(token, span)?)),
            (_, Some(span)) => Ok(Expression::Beyond(moment, duration(token, span)?)),
            (None, None) => Err(wrong(token.column, format!("{field} is compared by < or >"), format!("{field}<7d"))),
        };
    }
    let Some((_, known)) = Field::ALL.into_iter().find(|(word, _)| *word == field) else {
        let fields = Field::ALL.map(|(word, _)| word).join(", ");
        return Err(wrong(token.column, format!("`{field}` is no field"), format!("{fields}, expires, renews")));
    };
    let (values, not) = match rest.strip_prefix("!=") {
        Some(values) => (values, true),
        None => (rest.strip_prefix([':', '=']).unwrap_or_default(), false),
    };
    let values: Vec<String> = values.split(',').map(ToOwned::to_owned).collect();
    let words = known.words();
    let unknown = |value: &&String| value.is_empty() || !(words.is_empty() || words.contains(&value.as_str()));
    if let Some(value) = values.iter().find(unknown) {
        let hint = if words.is_empty() { format!("{field}:NAME") } else { format!("one of {}", words.join(", ")) };
        return Err(wrong(token.column, format!("`{value}` is no value of {field}"), hint));
    }
    let is = Expression::Is(known, values);
    Ok(if not { Expression::Not(Box::new(is)) } else { is })
}

fn duration(token: &Token, text: &str) -> Result<SignedDuration, FilterError> {
    let minutes = match text.chars().last() {
        Some('d') => 24 * 60,
        Some('h') => 60,
        Some('m') => 1,
        _ => 0,
    };
    let number = text.strip_suffix(['d', 'h', 'm']).and_then(|number| number.parse::<i64>().ok());
    let span = number.filter(|number| *number >= 0).and_then(|number| number.checked_mul(minutes));
    match span.filter(|span| minutes > 0 && span / 60 <= HOURS_MAX) {
        Some(span) => Ok(SignedDuration::from_mins(span)),
        None => Err(wrong(token.column, format!("`{text}` is no span of time"), "7d, 12h or 30m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn check(filter: &str, expected: bool) {
        let names = ["api.example.test".to_owned(), "2001:db8::1".to_owned()];
        let subject = Subject {
            name: "Api-EU",
            identifiers: &names,
            issuer: "LE",
            key: KeyType::Rsa2048,
            custody: Custody::Agent,
            status: Status::Active,
            deployment: Deployment::Partial,
            agents: &["web-01".to_owned()],
            labels: &["role=web".to_owned(), "tier=1".to_owned()],
            expires_at: Some(NOW + SignedDuration::from_hours(6 * 24)),
            renews_at: None,
        };
        let parsed = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error:?}"));
        assert_eq!(parsed.finds(&subject, NOW), expected, "{filter}");
    }

    #[test]
    fn each_condition_finds_what_it_says() {
        for yes in [
            "",
            "  ",
            "api-eu",
            "API.example",
            "2001:db8",
            "!shop",
            "issuer:le",
            "issuer=lab,le",
            "key:rsa2048",
            "key!=p256,p384",
            "status:active,failed",
            "deployment:partial",
            "custody:agent",
            "agent:web-01",
            "name:api-eu",
            "expires<7d",
            "expires>5d",
            "expires<145h",
            "!renews<7d",
            "api eu issuer:le",
            "api and eu",
            "(shop or api) !status:failed",
            "shop or api issuer:le",
            "!(shop or status:failed)",
        ] {
            check(yes, true);
        }
        for no in [
            "shop",
            "!api",
            "issuer:lab",
            "key:p256",
            "key!=rsa2048",
            "status!=active",
            "expires<5d",
            "expires>144h",
            "renews<7d",
            "renews>7d",
            "api shop",
            "(shop or api) issuer:lab",
            "name:api",
        ] {
            check(no, false);
        }
    }

    #[test]
    fn a_typing_error_is_named_with_its_column_and_never_finds_everything() {
        let check = |filter: &str, column: usize, part: &str| {
            let error = Filter::parse(filter).expect_err(filter);
            assert_eq!(error.column, column, "{filter}: {error:?}");
            assert!(error.message.contains(part) && !error.hint.is_empty(), "{filter}: {error:?}");
        };
        check("isuer:le", 1, "`isuer` is no field");
        check("api key:p255", 5, "`p255` is no value of key");
        check("status:", 1, "no value of status");
        check("issuer:le,", 1, "no value of issuer");
        check("expires:7d", 1, "compared by < or >");
        check("expires<", 1, "no span of time");
        check("expires<7", 1, "no span of time");
        check("expires<-7d", 1, "no span of time");
        check("expires<99999999999999999d", 1, "no span of time");
        check("(api", 1, "not closed");
        check("api)", 4, "too many");
        check("()", 1, "empty");
        check("api !", 6, "missing");
        check("api or", 7, "between two");
        check("or api", 7, "between two");
        check(&"(".repeat(100), 18, "too deeply");
        check(&"a".repeat(501), 500, "too long");
    }
}
