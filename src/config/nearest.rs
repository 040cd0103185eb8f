//! The legal name nearest to a wrong one.
//! In: the wrong name and all legal ones. Out: the end of an error message.

/// `; did you mean `store`?`, or where all names are listed.
pub(super) fn hint(wrong: &str, legal: impl Iterator<Item = String>) -> String {
    let nearest = legal.map(|name| (strsim::osa_distance(wrong, &name), name)).min();
    match nearest {
        // A third of the letters: `KHALA_STROE` is a slip, `KHALA_HOME` is something else.
        Some((distance, name)) if distance * 3 <= wrong.trim_start_matches("KHALA_").len().max(3) => {
            format!("; did you mean `{name}`?")
        }
        _ => "; `khala config check` lists all".to_owned(),
    }
}
