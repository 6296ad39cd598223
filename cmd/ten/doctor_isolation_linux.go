package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"tenement"
	"tenement/internal/network"
	"tenement/internal/rootless"
	"tenement/internal/runtime"
)

// isolatedBy lists the services that ask for a degree of isolation.
func (e *examination) isolatedBy(degree tenement.Isolation) (names []string) {
	if e.config == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(e.config.Services)) {
		if e.config.Services[name].Isolation == degree {
			names = append(names, name)
		}
	}
	return names
}

// checkNamespaces says whether instances can be given what is their own alone, which
// matters to services that ask for it.
func checkNamespaces(_ context.Context, e *examination) []finding {
	wanted := e.isolatedBy(tenement.IsolationNamespace)
	kind, err := "they can be made", error(nil)
	if os.Geteuid() == 0 {
		err = runtime.CheckNamespaces()
	} else {
		kind, err = `they can be made in a user namespace, for services with egress = "deny"`, rootless.Check()
	}
	switch {
	case err != nil && len(wanted) == 0:
		return found(verdictOK, "none can be made, and no service asks for them: "+err.Error(), tenement.HintOf(err))
	case err != nil:
		return found(verdictFail, strings.Join(wanted, ", ")+" cannot start: "+err.Error(), tenement.HintOf(err))
	case runtime.LandlockVersion() == 0:
		return found(verdictWarn, kind+", without Landlock as a second wall behind what a program sees of the file system",
			"boot a kernel of 5.13 or newer with landlock among lsm=")
	}
	return found(verdictOK, fmt.Sprintf("%s, with version %d of Landlock", kind, runtime.LandlockVersion()), "")
}

// checkSandbox does so for sandboxes.
func checkSandbox(_ context.Context, e *examination) []finding {
	wanted := e.isolatedBy(tenement.IsolationSandbox)
	path, err := runtime.FindRunsc()
	switch {
	case err == nil:
		return found(verdictOK, path+", version "+runtime.RunscVersion+", platform "+runtime.RunscPlatform, "")
	case len(wanted) == 0:
		return found(verdictOK, "none can be made, and no service asks for one: "+err.Error(), tenement.HintOf(err))
	}
	return found(verdictFail, strings.Join(wanted, ", ")+" cannot start: "+err.Error(), tenement.HintOf(err))
}

// checkFirewall looks for what stands between tenants and the outside.
func checkFirewall(_ context.Context, e *examination) []finding {
	if os.Geteuid() != 0 || !e.reachesOut() {
		return nil
	}
	subnet := network.DefaultSubnet.String()
	dropping, err := network.Firewalls(network.DefaultSubnet)
	switch {
	case err != nil:
		return found(verdictWarn, "what other programs drop cannot be read: "+err.Error(), tenement.HintOf(err))
	case len(dropping) > 0:
		return found(verdictWarn, "tenants reach nothing outside: what is forwarded is dropped by "+strings.Join(dropping, ", "),
			"let "+subnet+" and answers to it through: with Docker, iptables -I DOCKER-USER -s "+subnet+" -j ACCEPT, and the same with -d; with ufw, ufw route allow from "+subnet)
	}
	return found(verdictOK, "nobody drops what tenants send", "")
}

// reachesOut says whether isolated instances are to reach what is outside.
func (e *examination) reachesOut() bool {
	if e.config == nil {
		return false
	}
	return slices.ContainsFunc(slices.Collect(maps.Values(e.config.Services)), func(s *tenement.Service) bool {
		return s.Isolation != tenement.IsolationProcess && s.Egress == tenement.EgressAllow
	})
}
