package main

import (
	"fmt"
	"os"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// setProxies gives this process the launcher's proxies, as http.ProxyFromEnvironment
// finds them. RUN steps have an environment of their own.
func setProxies(p request.Proxy) error {
	for name, value := range map[string]string{"HTTP_PROXY": p.HTTP, "HTTPS_PROXY": p.HTTPS, "NO_PROXY": p.No} {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}
