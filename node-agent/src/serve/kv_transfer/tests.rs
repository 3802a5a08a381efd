//! Who sends which rows, and to whom they are refused.
