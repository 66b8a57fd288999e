//! The sections of the file, read so that every error names its line, and written.

use super::{Config, Invalid, Limits, Log, Management, Port, at, line_of};
use core::fmt;
use core::marker::PhantomData;
use serde::Serialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use slim_core::nf::NetworkFunction;
use slim_core::protocol::Name;

/// What has been read so far.
struct Sections<C> {
    name: Option<Name>,
    management: Option<Management>,
    ports: Option<Vec<Port>>,
    limits: Option<Limits>,
    log: Option<Log>,
    nf: Option<C>,
    /// An entry that does not belong there.
    unknown: Option<String>,
}

struct SectionsOf<F>(PhantomData<F>);

impl<'de, F: NetworkFunction> Visitor<'de> for SectionsOf<F> {
    type Value = Sections<F::Config>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name, [management], [[port]], [limits], [log] and [{}]", F::KIND)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut sections =
            Sections { name: None, management: None, ports: None, limits: None, log: None, nf: None, unknown: None };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => sections.name = Some(map.next_value()?),
                "management" => sections.management = Some(map.next_value()?),
                "port" => sections.ports = Some(map.next_value()?),
                "limits" => sections.limits = Some(map.next_value()?),
                "log" => sections.log = Some(map.next_value()?),
                kind if kind == F::KIND => sections.nf = Some(map.next_value()?),
                _ => {
                    map.next_value::<toml::Value>()?;
                    sections.unknown.get_or_insert(key);
                }
            }
        }
        if sections.nf.is_none() && sections.unknown.is_none() {
            return Err(A::Error::custom(format_args!("section `{}` is missing", F::KIND)));
        }
        Ok(sections)
    }
}

/// Reads the file.
pub(super) fn read<F: NetworkFunction>(text: &str) -> Result<Config<F::Config>, Invalid> {
    let wrong = |error: toml::de::Error| Invalid(error.to_string().trim_end().to_owned());
    let document = toml::Deserializer::parse(text).map_err(wrong)?;
    let sections = document.deserialize_map(SectionsOf::<F>(PhantomData)).map_err(wrong)?;
    if let Some(unknown) = sections.unknown {
        let line = at(line_of(text, &[], &unknown));
        return Err(Invalid(format!(
            "{line}unknown entry `{unknown}`; there are name, [management], [[port]], [limits], [log] and [{}]",
            F::KIND
        )));
    }
    let missing = |name: &str| Invalid(format!("`{name}` is missing"));
    Ok(Config {
        name: sections.name.ok_or_else(|| missing("name"))?,
        management: sections.management.ok_or_else(|| missing("management"))?,
        ports: sections.ports.ok_or_else(|| missing("port"))?,
        limits: sections.limits.unwrap_or_default(),
        log: sections.log,
        nf: sections.nf.ok_or_else(|| missing(F::KIND))?,
    })
}

/// Writes the file.
pub(super) fn write<F: NetworkFunction>(config: &Config<F::Config>) -> Result<String, toml::ser::Error> {
    let mut document = toml::Table::new();
    document.insert("name".into(), config.name.as_str().into());
    let mut section = |name: &str, value: toml::Value| document.insert(name.to_owned(), value);
    section("management", value(&config.management)?);
    section("port", value(&config.ports)?);
    section("limits", value(&config.limits)?);
    if let Some(log) = &config.log {
        section("log", value(log)?);
    }
    section(F::KIND, value(&config.nf)?);
    toml::to_string(&document)
}

fn value(of: &impl Serialize) -> Result<toml::Value, toml::ser::Error> {
    toml::Value::try_from(of)
}
