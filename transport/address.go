package transport

import (
	"net/http"
	"net/netip"
)

// Address returns what the client of r counts as where limits are per address: its IPv4
// address, its IPv6 /64 network, or the remote address as it is where that is no IP address.
// Headers of proxies are not read: anyone can send them.
func Address(r *http.Request) string {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	network, err := addr.Prefix(64)
	if err != nil {
		return addr.String()
	}
	return network.String()
}
