// Package gateway is the only way out of a sandbox: a network in userspace with
// a policy. What the sandbox sends arrives as frames on one packet socket; a TCP/IP
// stack (gVisor's) takes them apart; every flow is judged on its destination
// address when it begins, dialled with the host's sockets, spliced, and told to
// the sink as one Record when it ends.
//
//	sandbox -- veth -- packet socket -> stack -> policy.Egress -> host's sockets
//	                                     |-> DNS -> host's name servers
//
// TCP, UDP and ICMP echo go out, over IPv4 and IPv6; nothing else does, and
// nothing comes in. A denied TCP connection is reset, denied datagrams and echo
// requests are answered as unreachable.
//
// The gateway's own address has two services. Port 53 answers questions with
// what the host's name servers say, without the addresses that the policy
// denies. Every other port is the same port of the host's loopback: to reach
// 127.0.0.1:5000 of the host, dial GatewayIPv4:5000 (and GatewayIPv6 for ::1).
// It is judged as 127.0.0.1:5000, which is denied unless an allow rule names it.
//
// The sandbox is taken for hostile: flows, questions, half-open connections,
// buffers and remembered names are bounded (Limits), and what is over a bound
// is dropped and counted, as a lossy network would.
//
// It may open sockets on the host, read the host's interface addresses and, to
// make a link (Through, FirstStage), make namespaces, a veth pair in them, and
// start the program that it was given. It must not change the host's network,
// read files, parse anything above DNS, or dial an address that was not judged,
// but the host's own name servers.
package gateway
