//! Tells a server of the owner's how it stands with this device, if the owner wants that: one
//! small document after each look for an update. Nothing is sent to anybody else.

use serde_json::{Value, json};
use ureq::http::header;

use super::report::Report;
use super::{session, web};
use crate::own_config::outside;
use crate::slots::Slots;
use crate::update::{Facts, Outcome};

/// `iota update report`.
pub fn report(facts: &Facts) -> Outcome {
    sent(facts).unwrap_or_else(Outcome::from)
}

fn sent(facts: &Facts) -> Result<Outcome, String> {
    let places = &facts.online;
    let update = places.update()?;
    let Some(address) = update.report() else {
        return Ok(Outcome::Nothing("iota.toml names nobody to tell".to_owned()));
    };
    let document = document(
        &places.machine_id(),
        facts.boot().ok().map(|boot| boot.version),
        Slots::find(facts).map(|slots| slots.json()),
        Report::read(&places.report),
    );
    post(places, address, &document)?;
    Ok(Outcome::Done(format!("told {address}"), json!({ "told": address })))
}

/// Who it is, what runs, what the slots hold, and what came of looking for updates.
fn document(
    machine_id: &str,
    version: Option<String>,
    slots: Result<Value, String>,
    update: Option<Report>,
) -> Value {
    json!({
        "machine-id": machine_id,
        "version": version,
        "slots": slots.as_ref().ok(),
        "slots-error": slots.as_ref().err(),
        "update": update.map(|update| update.json()),
    })
}

fn post(places: &session::Places, address: &str, document: &Value) -> Result<(), String> {
    let agent = web::agent(address, &outside::bundle(), &places.proxy()?);
    let request = agent.post(address).header(header::CONTENT_TYPE, "application/json");
    let answer = request.send(document.to_string().as_bytes());
    let told = |why: &str| format!("cannot tell {address}: {why}");
    match answer {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(told(&format!("it answers {}", answer.status().as_u16()))),
        Err(error) => Err(told(web::trouble(&error).why())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_who_what_and_how_it_went_and_nothing_of_the_configuration() {
        let update = Report { verdict: "runs".to_owned(), ..Report::default() };
        let whole =
            document("ab", Some("1.0".to_owned()), Ok(json!({ "running": "a" })), Some(update));
        let keys: Vec<&String> = whole.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["machine-id", "slots", "slots-error", "update", "version"]);
        assert_eq!(
            (&whole["slots"]["running"], &whole["update"]["verdict"]),
            (&"a".into(), &"runs".into())
        );
        let little = document("", None, Err("no disk".to_owned()), None);
        assert_eq!((&little["slots-error"], &little["version"]), (&"no disk".into(), &Value::Null));
    }
}
