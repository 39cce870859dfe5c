// Package insandbox runs a package's own tests inside gVisor, for rooms whose
// code works nowhere else: those that mount, make device nodes or start
// commands. A TestMain calls Main, which either runs the tests (inside) or
// starts runsc with the same test program and the same -test flags (outside).
//
//	func TestMain(m *testing.M) { insandbox.Main(m) }
//
// Inside there is the product's own environment: a read-only root with the
// program, the module's source read-only (tests start in their package's
// directory, as always), a tmpfs on /tmp, a disk-backed sentry tmpfs on
// Workspace, no network. For tests only: nothing of the product imports it.
//
// runsc is found through KBUILD_RUNSC, else in the module's bin directory, else
// in PATH. That it is missing is a failure, not a reason to skip.
package insandbox
