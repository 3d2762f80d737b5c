package caddydpop

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-dpop/caddy-dpop/internal/watch"
	"github.com/caddy-dpop/caddy-dpop/replay"
	"github.com/caddy-dpop/caddy-dpop/replay/redis"
)

func init() {
	caddy.RegisterModule(RedisReplay{})
}

// RedisReplay records accepted proofs in Redis or Valkey, so that of any number
// of servers which share it one alone accepts a proof, once, and restarts do not
// matter. They need the same `max_age`, `clock_skew` and nonce `lifetime`, and
// clocks that differ by less than 5 seconds.
//
// Nothing a client sends gets there: keys are hashes. Redis must not evict what it
// holds (`maxmemory-policy noeviction`), and what it loses can be replayed: by a
// restart without persistence, or by a failover, because replicas follow a moment
// later.
//
// The user needs the right to `SET` the keys, `+set ~dpop:*`; to see whether Redis
// evicts also `+config|get` or `+info`, for another database `+select`, and while
// a cluster moves slots `+asking`.
type RedisReplay struct {
	// Where Redis is: `host:port` of one server, of nodes of a cluster, or with
	// `master_name` of sentinels. Default of the port: `6379`, of sentinels `26379`.
	Addresses []string `json:"addresses,omitempty"`

	// The name by which the sentinels know the master.
	MasterName string `json:"master_name,omitempty"`

	// The user, by Redis' access control list. Default: the default user.
	Username string `json:"username,omitempty"`

	// The user's password. Sentinels that ask for one get the same.
	Password string `json:"password,omitempty"`

	// The number of the database. A cluster has but one. Default: `0`.
	DB int `json:"db,omitempty"`

	// Encrypts connections, to sentinels too. `{}` trusts the system's roots. Default:
	// connections are not encrypted.
	TLS *RedisTLS `json:"tls,omitempty"`

	// What keys begin with. Handlers and servers with other prefixes accept a proof
	// each for itself. Default: `dpop:`.
	KeyPrefix string `json:"key_prefix,omitempty"`

	// How long recording a proof may take. Default: `250ms`.
	Timeout *caddy.Duration `json:"timeout,omitempty"`

	// What becomes of a proof that cannot be recorded, because Redis is down, slow,
	// full or wrong:
	//
	// - `deny` (default): the request is answered 503.
	// - `allow`: the proof is accepted, with a warning in the log. Whoever can disturb
	// Redis, or waits until it fails, can then replay proofs.
	OnError string `json:"on_error,omitempty"`

	store   *redis.Store
	release []func()
}

// RedisTLS is how connections to Redis are encrypted. Its files are read again
// when they change.
type RedisTLS struct {
	// The file with the roots (PEM) to trust, in place of the system's.
	CAFile string `json:"ca_file,omitempty"`

	// The file with this server's certificate for mutual TLS, and those between it
	// and the root (PEM).
	CertificateFile string `json:"certificate_file,omitempty"`

	// The file with the certificate's private key (PEM).
	KeyFile string `json:"key_file,omitempty"`
}

const (
	defaultRedisPrefix  = "dpop:"
	defaultRedisTimeout = 250 * time.Millisecond
	redisPort           = "6379"
	sentinelPort        = "26379"

	onErrorDeny  = "deny"
	onErrorAllow = "allow"
)

// CaddyModule returns the Caddy module information.
func (RedisReplay) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dpop.replay.redis",
		New: func() caddy.Module { return new(RedisReplay) },
	}
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *RedisReplay) UnmarshalJSON(text []byte) error {
	type plain RedisReplay
	return decodeExactly(text, (*plain)(r))
}

// redisStores holds the stores of all handlers, so that they survive reloads.
var redisStores = caddy.NewUsagePool()

// redisStoreID is all that a store is made of.
type redisStoreID struct {
	redisPlace
	tls          bool
	files        RedisTLS
	secrets      string // hash of them
	timeout      time.Duration
	allowOnError bool
}

// sharedRedis is a store in the pool.
type sharedRedis struct{ *redis.Store }

// Destruct ends the store when the last handler lets go of it.
func (s sharedRedis) Destruct() error {
	s.Close()
	return nil
}

// redisPlaces holds what was let go of in each place, for all stores whose
// records are there: a reload may change how they get there.
var redisPlaces = caddy.NewUsagePool()

// redisPlace is where records are.
type redisPlace struct {
	addresses, masterName string
	db                    int
	prefix                string
}

// sharedRetention is what is known of a place in the pool.
type sharedRetention struct{ *replay.Retention }

// Destruct forgets it: no handler is left that could ask.
func (sharedRetention) Destruct() error { return nil }

// Provision joins the store of these settings. It opens no connection: that is
// done when the configuration starts.
func (r *RedisReplay) Provision(ctx caddy.Context) error {
	settings, err := resolved(*r)
	if err != nil {
		return within("replay", err)
	}
	if err := (checker{}).redis(&settings); err != nil {
		return within("replay", err)
	}
	companion, err := companionOf(ctx)
	if err != nil {
		return err
	}
	options := settings.options()
	id := redisStoreID{
		redisPlace:   redisPlace{strings.Join(options.Addresses, " "), options.MasterName, options.DB, options.KeyPrefix},
		tls:          settings.TLS != nil,
		secrets:      hashed(options.Username, options.Password),
		timeout:      options.Timeout,
		allowOnError: options.AllowOnError,
	}
	if settings.TLS != nil {
		id.files = *settings.TLS
		if options.TLS, err = settings.TLS.open(); err != nil {
			return err
		}
	}
	retention, err := r.join(redisPlaces, id.redisPlace, func() caddy.Destructor {
		return sharedRetention{new(replay.Retention)}
	})
	if err != nil {
		return err
	}
	options.Retention = retention.(sharedRetention).Retention
	store, err := r.join(redisStores, id, func() caddy.Destructor { return sharedRedis{redis.New(options)} })
	if err != nil {
		return err
	}
	r.store = store.(sharedRedis).Store
	companion.atStart(func() (func(), error) { return r.store.Open(), nil })
	return nil
}

// join returns what a pool has by a key, made first where there is none, until
// Cleanup.
func (r *RedisReplay) join(pool *caddy.UsagePool, key any, make func() caddy.Destructor) (any, error) {
	value, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) { return make(), nil })
	if err == nil {
		r.release = append(r.release, func() { _, _ = pool.Delete(key) })
	}
	return value, err
}

// options are those of the store, but for what is shared, of checked settings.
func (r *RedisReplay) options() redis.Options {
	port := redisPort
	if r.MasterName != "" {
		port = sentinelPort
	}
	addresses := make([]string, len(r.Addresses))
	for i, text := range r.Addresses {
		addresses[i], _ = redisAddress(text, port)
	}
	slices.Sort(addresses)
	return redis.Options{
		Addresses:    addresses,
		MasterName:   r.MasterName,
		Username:     r.Username,
		Password:     r.Password,
		DB:           r.DB,
		KeyPrefix:    orDefault(r.KeyPrefix, defaultRedisPrefix),
		Timeout:      r.timeout(),
		AllowOnError: r.OnError == onErrorAllow,
		Logger:       func() *zap.Logger { return caddy.Log().Named("dpop.replay.redis") },
	}
}

func (r *RedisReplay) timeout() time.Duration { return durationOr(r.Timeout, defaultRedisTimeout) }

// open reads the files, and returns the configuration of a connection as they
// then are.
func (r *RedisTLS) open() (func() *tls.Config, error) {
	roots := new(rootFiles)
	if r.CAFile != "" {
		file, err := watch.Open(r.CAFile, parseCertificates)
		if err != nil {
			return nil, &settingError{"replay.tls.ca_file", err}
		}
		roots.files = append(roots.files, file)
	}
	var certificate func() (*tls.Certificate, error)
	if r.CertificateFile != "" {
		var err error
		if certificate, err = (&ClientCertificate{r.CertificateFile, r.KeyFile}).open(); err != nil {
			return nil, &settingError{"replay.tls", errors.Unwrap(err)}
		}
	}
	return func() *tls.Config {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if len(roots.files) > 0 {
			config.RootCAs = roots.pool()
		}
		if certificate != nil {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate() }
		}
		return config
	}, nil
}

// ReplayStore implements ReplayModule.
func (r *RedisReplay) ReplayStore() replay.Store { return r.store }

// Cleanup leaves what Provision joined, also if that failed midway.
func (r *RedisReplay) Cleanup() error {
	for _, release := range r.release {
		release()
	}
	r.release = nil
	return nil
}

// redis checks the settings of a store.
func (c checker) redis(r *RedisReplay) error {
	if len(r.Addresses) == 0 {
		return wrong("addresses", "required: where Redis is")
	}
	var seen []string
	for _, text := range r.Addresses {
		if c.pending(text) {
			continue
		}
		address, err := redisAddress(text, redisPort)
		if err != nil {
			return &settingError{"addresses", err}
		}
		if slices.Contains(seen, address) {
			return wrong("addresses", "%s is repeated", text)
		}
		seen = append(seen, address)
	}
	if r.Username != "" && r.Password == "" {
		return wrong("password", "required with username")
	}
	if r.DB < 0 {
		return wrong("db", "%d is negative", r.DB)
	}
	if r.DB > 0 && len(r.Addresses) > 1 && r.MasterName == "" {
		return wrong("db", "contradicts several addresses, which without master_name are of a cluster: that has database 0 alone")
	}
	if r.TLS != nil && (r.TLS.CertificateFile == "") != (r.TLS.KeyFile == "") {
		return wrong("tls", "a certificate needs its key, and a key its certificate")
	}
	if strings.ContainsFunc(r.KeyPrefix, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return wrong("key_prefix", "holds a character that is not printable ASCII, or a space")
	}
	if err := checkDuration("timeout", r.timeout(), time.Millisecond); err != nil {
		return err
	}
	if !c.pending(r.OnError) && !slices.Contains([]string{"", onErrorDeny, onErrorAllow}, r.OnError) {
		return wrong("on_error", "unknown value %q: it is deny or allow", r.OnError)
	}
	return nil
}

// redisAddress returns an address with a port. Errors do not repeat it: there are
// URLs of Redis that have a password in them.
func redisAddress(text, defaultPort string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if ip, ipErr := netip.ParseAddr(strings.Trim(text, "[]")); ipErr == nil {
		host, port, err = ip.String(), defaultPort, nil
	} else if !strings.Contains(text, ":") {
		host, port, err = text, defaultPort, nil
	}
	if err != nil || host == "" || strings.ContainsAny(host, "/@ ") {
		return "", errors.New("an address is host:port, and no URL")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("the port of an address is a number from 1 to 65535")
	}
	return net.JoinHostPort(host, port), nil
}

// UnmarshalCaddyfile sets the store up from Caddyfile tokens. Syntax:
//
//	replay redis {
//	    address     <host:port...>
//	    master_name <name>
//	    username    <username>
//	    password    <password>
//	    db          <n>
//	    tls         [ca <pem file>] [cert <pem file> <key file>]
//	    key_prefix  <prefix>
//	    timeout     <duration>
//	    on_error    deny|allow
//	}
func (r *RedisReplay) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	b := newBlock(d)
	if err := b.noArguments(); err != nil {
		return err
	}
	err := b.each(map[string]func() error{
		"address":     func() error { return b.list(&r.Addresses) },
		"master_name": func() error { return b.text(&r.MasterName) },
		"username":    func() error { return b.text(&r.Username) },
		"password":    func() error { return b.text(&r.Password) },
		"db":          func() error { return r.unmarshalDB(b) },
		"tls":         func() error { return r.unmarshalTLS(b) },
		"key_prefix":  func() error { return b.text(&r.KeyPrefix) },
		"timeout":     func() error { return b.duration(&r.Timeout) },
		"on_error":    func() error { return b.text(&r.OnError) },
	})
	if err != nil {
		return err
	}
	return b.locate(checker{adapting: true}.redis(r))
}

func (r *RedisReplay) unmarshalDB(b *block) error {
	var text string
	if err := b.text(&text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return b.d.Errf("db: '%s' is not a whole number", text)
	}
	r.DB = n
	return nil
}

func (r *RedisReplay) unmarshalTLS(b *block) error {
	r.TLS = new(RedisTLS)
	for b.d.NextArg() {
		option := b.d.Val()
		var files []*string
		switch {
		case option == "ca" && r.TLS.CAFile == "":
			files = []*string{&r.TLS.CAFile}
		case option == "cert" && r.TLS.CertificateFile == "":
			files = []*string{&r.TLS.CertificateFile, &r.TLS.KeyFile}
		default:
			return b.d.Errf("tls: unknown or repeated '%s'", option)
		}
		if !b.d.Args(files...) {
			return b.argErr()
		}
		for _, file := range files {
			if err := b.filled("tls", *file); err != nil {
				return err
			}
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*RedisReplay)(nil)
	_ caddy.CleanerUpper    = (*RedisReplay)(nil)
	_ caddyfile.Unmarshaler = (*RedisReplay)(nil)
	_ ReplayModule          = (*RedisReplay)(nil)
)
