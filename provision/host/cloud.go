package host

import "strings"

// cloudProvider tells the provider by what the firmware says of the machine, as
// the providers document it and cloud-init's ds-identify reads it. The metadata
// service is never asked: it takes a network.
func (h *Host) cloudProvider() string {
	dmi := func(name string) string { return h.text("/sys/class/dmi/id/" + name) }
	vendor, product := dmi("sys_vendor"), dmi("product_name")
	switch vendor {
	case "Amazon EC2":
		return "aws"
	case "Hetzner":
		return "hetzner"
	case "DigitalOcean":
		return "digitalocean"
	case "Vultr":
		return "vultr"
	case "Scaleway":
		return "scaleway"
	case "UpCloud":
		return "upcloud"
	case "Akamai", "Linode":
		return "akamai"
	}
	switch {
	case product == "Google Compute Engine", strings.HasPrefix(dmi("product_serial"), "GoogleCloud-"):
		return "gce"
	case product == "Alibaba Cloud ECS":
		return "alibaba"
	case strings.HasPrefix(product, "Exoscale"):
		return "exoscale"
	}
	switch tag := dmi("chassis_asset_tag"); tag {
	case "7783-7084-3265-9085-8269-3286-77": // "MSFT AZURE VM" in decimal
		return "azure"
	case "OracleCloud.com":
		return "oracle"
	case "HUAWEICLOUD":
		return "huawei"
	case "OpenTelekomCloud", "SAP CCloud VM", "OpenStack Nova", "OpenStack Compute":
		return "openstack"
	}
	if product == "OpenStack Nova" || product == "OpenStack Compute" {
		return "openstack"
	}
	// Instances on Xen: both begin with "ec2" and are the same but for the case.
	uuid, serial := strings.ToLower(dmi("product_uuid")), strings.ToLower(dmi("product_serial"))
	if strings.HasPrefix(uuid, "ec2") && uuid == serial || strings.HasPrefix(h.text("/sys/hypervisor/uuid"), "ec2") {
		return "aws"
	}
	return ""
}
