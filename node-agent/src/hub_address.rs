//! The address of a hub as a person writes it: HOST:PORT, told apart from everything that is none before anything is dialled.

use std::net::Ipv6Addr;

/// Why a text is no address of a hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubAddressError {
    #[error("{0:?} is a URL, and a hub is none: write HOST:PORT, such as 192.168.1.10:7700, without http://")]
    Url(String),
    #[error("{0:?} has no port: write HOST:PORT, such as 192.168.1.10:7700")]
    NoPort(String),
    #[error("{port:?} in {address:?} is no port: it is a whole number from 1 to 65535, most likely 7700")]
    Port { address: String, port: String },
    #[error(
        "{address:?} can be read in two ways: write [{host}]:{port}, or [{address}]:7700 if all of it is the address"
    )]
    TwoWays { address: String, host: String, port: String },
    #[error("{0:?} is no address of a host: write HOST:PORT, such as 192.168.1.10:7700")]
    Garbled(String),
}

/// HOST:PORT of what a person wrote; where the port may be left out, it is `default_port` then.
///
/// # Errors
/// [`HubAddressError`], with how to write it.
pub fn parse(address: &str, default_port: Option<u16>) -> Result<String, HubAddressError> {
    let garbled = || HubAddressError::Garbled(address.to_owned());
    if address.contains("://") {
        return Err(HubAddressError::Url(address.to_owned()));
    }
    let without_port = |host: &str| match default_port {
        Some(port) => Ok(format!("{host}:{port}")),
        None => Err(HubAddressError::NoPort(address.to_owned())),
    };
    if let Ok(ip) = address.parse::<Ipv6Addr>() {
        // `::1:7700` is an address, and most likely not the one that is meant.
        if let Some((host, port)) = address.rsplit_once(':')
            && host.parse::<Ipv6Addr>().is_ok()
            && port.len() >= 4
            && port.parse::<u16>().is_ok()
        {
            let (address, host, port) = (address.to_owned(), host.to_owned(), port.to_owned());
            return Err(HubAddressError::TwoWays { address, host, port });
        }
        return without_port(&format!("[{ip}]"));
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (ip, rest) = rest.split_once(']').ok_or_else(garbled)?;
            ip.parse::<Ipv6Addr>().map_err(|_| garbled())?;
            (format!("[{ip}]"), if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(garbled)?) })
        }
        None => {
            let (host, port) = address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port)));
            let is_of_name = |character: char| character.is_alphanumeric() || "-._".contains(character);
            if host.is_empty() || !host.chars().all(is_of_name) {
                return Err(garbled());
            }
            (host.to_owned(), port)
        }
    };
    let Some(port) = port else { return without_port(&host) };
    match port.parse::<u16>() {
        Ok(1..) => Ok(format!("{host}:{port}")),
        _ => Err(HubAddressError::Port { address: address.to_owned(), port: port.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_may_leave_out_the_port_where_there_is_a_default() {
        for (written, meant) in [
            ("desk", "desk:7700"),
            ("desk.local:9000", "desk.local:9000"),
            ("10.0.0.1", "10.0.0.1:7700"),
            ("10.0.0.1:9000", "10.0.0.1:9000"),
            ("::1", "[::1]:7700"),
            ("fe80::1:2", "[fe80::1:2]:7700"),
            ("[::1]", "[::1]:7700"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(parse(written, Some(7700)).unwrap(), meant);
        }
        assert_eq!(parse("localhost", None), Err(HubAddressError::NoPort("localhost".into())));
        assert_eq!(parse("::1", None), Err(HubAddressError::NoPort("::1".into())));
    }

    #[test]
    fn what_is_no_address_is_refused_with_how_to_write_it() {
        for (wrong, remedy) in [
            ("http://desk:7700", "without http://"),
            ("desk:99999", "from 1 to 65535"),
            ("desk:0", "from 1 to 65535"),
            ("desk:", "from 1 to 65535"),
            ("desk:port", "from 1 to 65535"),
            ("::1:7700", "[::1]:7700"),
            ("", "HOST:PORT"),
            (":7700", "HOST:PORT"),
            ("a b", "HOST:PORT"),
            ("[::1", "HOST:PORT"),
            ("[::1]7700", "HOST:PORT"),
            ("[desk]:7700", "HOST:PORT"),
        ] {
            for default_port in [Some(7700), None] {
                let error = parse(wrong, default_port).unwrap_err().to_string();
                assert!(error.contains(remedy), "{wrong:?}: {error}");
            }
        }
    }
}
