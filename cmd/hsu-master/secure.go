package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api"
)

// secureFlags are those of run which say who may reach the port, and how.
func secureFlags() []cli.Flag {
	env := func(name string) []string { return []string{"HSU_MASTER_" + name} }
	return []cli.Flag{
		&cli.StringFlag{Name: "tls-cert", EnvVars: env("TLS_CERT"), Usage: "PEM `FILE` with the certificate to serve TLS with; followed when it changes"},
		&cli.StringFlag{Name: "tls-key", EnvVars: env("TLS_KEY"), Usage: "PEM `FILE` with its key"},
		&cli.StringFlag{Name: "tls-client-ca", EnvVars: env("TLS_CLIENT_CA"), Usage: "PEM `FILE` with the authorities whose certificates callers must show (mTLS)"},
		&cli.BoolFlag{Name: "insecure", EnvVars: env("INSECURE"), Usage: "serve beyond loopback without TLS: whoever reaches the port may call and read everything"},
	}
}

// secureFileFlags name files, which a service needs by their whole paths.
var secureFileFlags = []string{"tls-cert", "tls-key", "tls-client-ca"}

// listenAddress is where to serve. What is open to others than this host must be
// secured, or said to be meant so.
func listenAddress(c *cli.Context, fail func(string, ...any)) net.IP {
	listen := c.String("listen")
	ip := net.ParseIP(listen)
	switch {
	case listen == "localhost":
		return net.IPv4(127, 0, 0, 1)
	case ip == nil:
		fail("--listen %q: want an IP address of this host such as 127.0.0.1", listen)
	case !ip.IsLoopback() && c.String("tls-cert") == "" && !c.Bool("insecure"):
		fail("--listen %s is not a loopback address: secure it with --tls-cert and --tls-key, or say --insecure", ip)
	}
	return ip
}

// metricsAddress is where to show figures: they tell who is called how often, so that
// the rule for it is that of --listen.
func metricsAddress(c *cli.Context, fail func(string, ...any)) string {
	address := c.String("metrics")
	if address == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(address)
	number, portErr := strconv.ParseUint(port, 10, 16)
	ip := net.ParseIP(host)
	if host == "localhost" {
		ip = net.IPv4(127, 0, 0, 1)
	}
	switch {
	case err != nil || ip == nil || portErr != nil || number == 0:
		fail("--metrics %q: want HOST:PORT with an address of this host such as 127.0.0.1:9464", address)
	case !ip.IsLoopback() && !c.Bool("insecure"):
		fail("--metrics %s is not a loopback address: it is served without TLS, so say --insecure if it is meant so", address)
	}
	return net.JoinHostPort(ip.String(), port)
}

// tlsFiles are the zero value where the port is served without TLS.
func tlsFiles(c *cli.Context, fail func(string, ...any)) api.TLSFiles {
	files := api.TLSFiles{Cert: c.String("tls-cert"), Key: c.String("tls-key"), ClientCA: c.String("tls-client-ca")}
	switch {
	case files.Cert == "" && files.Key != "":
		fail("--tls-key is given without --tls-cert")
	case files.Cert != "" && files.Key == "":
		fail("--tls-cert is given without --tls-key")
	case files.Cert == "" && files.ClientCA != "":
		fail("--tls-client-ca is given without --tls-cert and --tls-key")
	}
	return files
}

// credentialFlags are those of a client of the port.
func credentialFlags() []cli.Flag {
	env := func(name string) []string { return []string{"HSU_MASTER_CALL_" + name} }
	return []cli.Flag{
		&cli.StringFlag{Name: "tls-ca", EnvVars: env("TLS_CA"), Usage: "PEM `FILE` with the authority that has signed the master's certificate: call it by TLS"},
		&cli.StringFlag{Name: "tls-cert", EnvVars: env("TLS_CERT"), Usage: "PEM `FILE` with a certificate to show to it, where it asks for one"},
		&cli.StringFlag{Name: "tls-key", EnvVars: env("TLS_KEY"), Usage: "PEM `FILE` with the key of that"},
		&cli.StringFlag{Name: "tls-name", EnvVars: env("TLS_NAME"), Usage: "`NAME` that the master's certificate is for, where it is not its address"},
	}
}

func credentialsOf(c *cli.Context) (credentials.TransportCredentials, error) {
	ca, cert, key := c.String("tls-ca"), c.String("tls-cert"), c.String("tls-key")
	switch {
	case ca == "" && (cert != "" || key != "" || c.String("tls-name") != ""):
		return nil, usagef("--tls-cert, --tls-key and --tls-name want --tls-ca too, by which the master is known")
	case (cert == "") != (key == ""):
		return nil, usagef("--tls-cert and --tls-key belong together: give both or none")
	case ca == "":
		return insecure.NewCredentials(), nil
	}
	pem, err := os.ReadFile(filepath.Clean(ca))
	if err != nil {
		return nil, usagef("--tls-ca: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.String("tls-name"), RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, usagef("--tls-ca: %s has no certificate in it: want PEM", ca)
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, usagef("--tls-cert and --tls-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config), nil
}
