package main

import (
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

// network is what a build may reach, and the file that tells what it reached.
type network struct {
	sandbox.Network
	audit string
}

// newNetwork makes sense of the flags about the network, for one request.
func newNetwork(n *flags.Network, req request.Build, from flags.From) (out network, err error) {
	if out.Run, err = n.Policy(); err != nil {
		return out, err
	}
	if out.Proxy, err = flags.Proxy(from.Env); err != nil {
		return out, err
	}
	out.Named = flags.Named(req, out.Proxy)
	out.audit, err = n.AuditLog(from.Dir, string(req.Context))
	return out, err
}

// told is the network with an audit log.
func (n network) told(to *auditLog) sandbox.Network {
	n.Audit, n.Closed = to.record, to.closed
	return n.Network
}
