# jumbo: large frames on the uplinks. Every switch and host on the way must take
# them; what does not drops them, and often in silence.

nodeprov {
  schema = 1
}

variable "jumbo_mtu" {
  type        = number
  default     = 9000
  description = "MTU in bytes; a device that takes less gets what it takes"

  validation {
    condition     = var.jumbo_mtu >= 1500 && var.jumbo_mtu <= 65535
    error_message = "jumbo_mtu is a number of bytes from 1500 to 65535."
  }
}

locals {
  # Hardware only. Default routes come too late at boot to decide here.
  jumbo_devices = { for n in host.nics : n.name => n if !n.virtual }
}

nic "jumbo" {
  for_each   = local.jumbo_devices
  name       = each.key
  mtu        = min(var.jumbo_mtu, each.value.max_mtu)
  on_missing = "skip"
}
