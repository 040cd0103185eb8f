//! The legal name nearest to a wrong one.
//! In: the wrong name and all legal ones. Out: the end of an error message.

/// `; did you mean `store`?`, or, where nothing is near enough for that, the nearest all the same.
#[must_use]
pub fn hint(wrong: &str, legal: impl Iterator<Item = String>) -> String {
    let Some((distance, name)) = legal.map(|name| (strsim::osa_distance(wrong, &name), name)).min() else {
        return String::new();
    };
    // A third of the letters: `KHALA_STROE` is a slip, `KHALA_HOME` is something else.
    if distance * 3 <= wrong.trim_start_matches("KHALA_").len().max(3) {
        return format!("; did you mean `{name}`?");
    }
    format!("; the nearest legal one is `{name}`")
}
