//! The configuration that all clients share.

use aws_config::{BehaviorVersion, Region, SdkConfig};

/// How to reach AWS, where the standard configuration chain (environment, profiles, SSO, roles of instances and
/// containers) is not what is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Region of the services.
    pub region: Option<String>,
    /// Profile in `~/.aws/config`.
    pub profile: Option<String>,
    /// Address of all services.
    pub endpoint: Option<String>,
}

impl Access {
    /// The standard chain's configuration, with what this sets.
    pub async fn config(&self) -> SdkConfig {
        let mut config = aws_config::defaults(BehaviorVersion::latest());
        if let Some(profile) = &self.profile {
            config = config.profile_name(profile);
        }
        self.on_top_of(&config.load().await)
    }

    /// What this sets, and where it sets nothing, what `other` does.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            region: self.region.clone().or_else(|| other.region.clone()),
            profile: self.profile.clone().or_else(|| other.profile.clone()),
            endpoint: self.endpoint.clone().or_else(|| other.endpoint.clone()),
        }
    }

    /// A configuration with what this sets. A profile is not among it: it decides where a configuration comes from.
    pub fn on_top_of(&self, config: &SdkConfig) -> SdkConfig {
        let mut builder = config.to_builder();
        if let Some(region) = &self.region {
            builder = builder.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        builder.build()
    }
}
