//! Wall: what breaks down in the template engine ends there. Its arithmetic is not all checked, and a template can be anybody's.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `work` gives, or the words of its panic. Nothing of what the engine had in hand is used after it.
pub(super) fn within<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| words(panic.as_ref()))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it says nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_its_own_words() {
        let broken = |words: &str| within(|| panic!("{words} zero"));
        assert_eq!(broken("by"), Err::<(), _>("by zero".to_owned()));
        assert_eq!(within(|| panic!("plain")), Err::<(), _>("plain".to_owned()));
        assert_eq!(within(|| 1), Ok(1));
    }
}
