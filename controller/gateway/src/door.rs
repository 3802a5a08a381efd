//! Door: what all routes share, whichever API they are of.

use std::sync::Arc;

use crate::config::GatewayConfig;
use crate::desk::Desk;
use crate::metrics::Metrics;
use crate::sessions::Sessions;

pub(crate) struct Door {
    pub(crate) sessions: Arc<dyn Sessions>,
    pub(crate) config: Arc<GatewayConfig>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) desk: Desk,
}
