package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strconv"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/daemon"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	configfile "github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/internal/safefile"
)

const insecureFlag = "insecure"

// secureFlags returns the flags of run that control which clients can connect to the port, and how.
func secureFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "tls-cert", EnvVars: runVariable("TLS_CERT"), Category: ofRequests,
			Usage: "`FILE` PEM file with the certificate to serve TLS with; it is read again when it changes",
		},
		&cli.StringFlag{
			Name: "tls-key", EnvVars: runVariable("TLS_KEY"), Category: ofRequests,
			Usage: "`FILE` PEM file with the key of --tls-cert",
		},
		&cli.StringFlag{
			Name: "tls-client-ca", EnvVars: runVariable("TLS_CLIENT_CA"), Category: ofRequests,
			Usage: "`FILE` PEM file with the authorities that must have signed the certificates of clients (mTLS)",
		},
		&cli.BoolFlag{
			Name: insecureFlag, EnvVars: runVariable("INSECURE"), Category: ofRequests,
			Usage: "serve other than loopback addresses without TLS: any host that reaches the port can call " +
				"everything and read everything",
		},
	}
}

// secureFileFlags are the flags that name files. A service needs their absolute paths.
var secureFileFlags = []string{"tls-cert", "tls-key", "tls-client-ca"}

// listenAddress returns the address to serve on. An address that other hosts can reach requires TLS or
// --insecure.
func listenAddress(c *cli.Context, fail func(string, ...any)) net.IP {
	listen := c.String("listen")
	ip := net.ParseIP(listen)
	switch {
	case listen == "localhost":
		return net.IPv4(127, 0, 0, 1)
	case ip == nil:
		fail("--listen %q: must be an IP address of this host such as 127.0.0.1", listen)
	case daemon.Exposed(ip, c.String("tls-cert") != "", c.Bool(insecureFlag)):
		fail("--listen %s is not a loopback address: %s", ip, daemon.HowToSecure)
	}
	return ip
}

// metricsAddress returns the address to serve metrics on. The rule of --listen applies: metrics reveal which
// services are called how often.
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
		fail("--metrics %q: must be HOST:PORT with an address of this host such as 127.0.0.1:9464", address)
	case daemon.Exposed(ip, false, c.Bool(insecureFlag)):
		fail("--metrics %s is not a loopback address, and metrics are served without TLS: "+
			"allow it with --insecure", address)
	}
	return net.JoinHostPort(ip.String(), port)
}

// registryPath returns the path of the socket of the module registry, "" if none is served.
func registryPath(c *cli.Context, fail func(string, ...any)) string {
	url := c.String(registryFlag)
	if url == "" {
		return ""
	}
	path, err := configfile.RegistryPath(url)
	if err != nil {
		fail("--%s %q: %w", registryFlag, url, err)
	}
	return path
}

// tlsFiles returns the files of the TLS flags, the zero value if the port is served without TLS.
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

// credentialFlags returns the TLS flags of a client of the port.
func credentialFlags() []cli.Flag {
	env := func(name string) []string { return []string{"HSU_MASTER_CALL_" + name} }
	return []cli.Flag{
		&cli.StringFlag{
			Name: "tls-ca", EnvVars: env("TLS_CA"),
			Usage: "`FILE` call the master by TLS; PEM file with the authority that signed its certificate",
		},
		&cli.StringFlag{
			Name: "tls-cert", EnvVars: env("TLS_CERT"),
			Usage: "`FILE` PEM file with a certificate for a master that requires one",
		},
		&cli.StringFlag{
			Name: "tls-key", EnvVars: env("TLS_KEY"),
			Usage: "`FILE` PEM file with the key of --tls-cert",
		},
		&cli.StringFlag{
			Name: "tls-name", EnvVars: env("TLS_NAME"),
			Usage: "`NAME` name in the master's certificate, if it is not the address",
		},
	}
}

func credentialsOf(c *cli.Context) (credentials.TransportCredentials, error) {
	ca, cert, key := c.String("tls-ca"), c.String("tls-cert"), c.String("tls-key")
	switch {
	case ca == "" && (cert != "" || key != "" || c.String("tls-name") != ""):
		return nil, exit.Usagef("--tls-cert, --tls-key and --tls-name need --tls-ca, which authenticates the master")
	case (cert == "") != (key == ""):
		return nil, exit.Usagef("--tls-cert and --tls-key belong together: give both or none")
	case ca == "":
		return insecure.NewCredentials(), nil
	}
	pem, err := safefile.ReadInput(ca)
	if err != nil {
		return nil, exit.Usagef("--tls-ca: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.String("tls-name"), RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, exit.Usagef("--tls-ca: %s contains no certificate in PEM", ca)
	}
	if cert != "" {
		pair, err := api.KeyPair(cert, key)
		if err != nil {
			return nil, exit.Usagef("--tls-cert and --tls-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config), nil
}
