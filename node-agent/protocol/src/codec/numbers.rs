//! The numbers by which a header says what a type says by name.

use super::FrameError;
use crate::activation::ActivationType;
use crate::frame::{FailureCode, Finish, HiddenKind};

pub(super) fn of_dtype(dtype: ActivationType) -> u8 {
    match dtype {
        ActivationType::F32 => 0,
        ActivationType::F16 => 1,
        ActivationType::Q8 => 2,
    }
}

pub(super) fn dtype(kind: u8, value: u8) -> Result<ActivationType, FrameError> {
    Ok(match value {
        0 => ActivationType::F32,
        1 => ActivationType::F16,
        2 => ActivationType::Q8,
        value => return Err(FrameError::UnknownValue { kind, field: "activation type", value }),
    })
}

/// After the bit that says whether to sample.
pub(super) fn of_hidden_kind(of: HiddenKind) -> u8 {
    match of {
        HiddenKind::Decoding => 0,
        HiddenKind::Encoding => 1,
        HiddenKind::Encoded => 2,
    }
}

pub(super) fn hidden_kind(kind: u8, value: u8) -> Result<HiddenKind, FrameError> {
    Ok(match value {
        0 => HiddenKind::Decoding,
        1 => HiddenKind::Encoding,
        2 => HiddenKind::Encoded,
        value => return Err(FrameError::UnknownValue { kind, field: "kind of hidden states", value }),
    })
}

pub(super) fn of_finish(finish: Option<Finish>) -> u8 {
    match finish {
        None => 0,
        Some(Finish::Stop) => 1,
        Some(Finish::Length) => 2,
    }
}

pub(super) fn finish(kind: u8, value: u8) -> Result<Option<Finish>, FrameError> {
    Ok(match value {
        0 => None,
        1 => Some(Finish::Stop),
        2 => Some(Finish::Length),
        value => return Err(FrameError::UnknownValue { kind, field: "finish flag", value }),
    })
}

const FAILURES: [FailureCode; 8] = [
    FailureCode::StaleGeneration,
    FailureCode::PeerGone,
    FailureCode::PeerSlow,
    FailureCode::Busy,
    FailureCode::Compute,
    FailureCode::BadFrame,
    FailureCode::HandOver,
    FailureCode::NonFinite,
];

pub(super) fn of_failure(code: FailureCode) -> u8 {
    FAILURES.iter().position(|known| *known == code).expect("every code is in the table") as u8
}

pub(super) fn failure(kind: u8, value: u8) -> Result<FailureCode, FrameError> {
    FAILURES.get(usize::from(value)).copied().ok_or(FrameError::UnknownValue { kind, field: "failure code", value })
}
