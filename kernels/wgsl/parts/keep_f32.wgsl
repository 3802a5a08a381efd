// A cache of f32: a unit is a value.

// Keeps unit number `unit` of a token row in the rows of the caches that begin at word `at`.
fn keep(row: u32, at: u32, unit: u32) {
    k_cache[at + unit] = key(row, unit);
    v_cache[at + unit] = value(row, unit);
}
