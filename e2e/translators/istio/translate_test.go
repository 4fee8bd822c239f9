// Package istio runs istiod's own translation on a file of manifests, without a cluster and without Istio.
//
// It is built as a test binary, because the fake discovery server wants one, and does nothing but print:
// one line of JSON per Envoy resource, `{"listener": …}`, `{"route": …}`, `{"cluster": …}`.
package istio

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/schema/gvr"
	kubelib "istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/kube/kclient/clienttest"
)

// TestTranslate reads TIDEGATE_CONFIG (Istio's kinds) and TIDEGATE_OBJECTS (Kubernetes' and Gateway API's kinds),
// for a gateway in TIDEGATE_NAMESPACE with the labels of TIDEGATE_LABELS (a JSON object),
// or for the sidecar of a workload at TIDEGATE_SIDECAR (its address),
// and writes to TIDEGATE_OUT once as many routes as TIDEGATE_ROUTES are there.
func TestTranslate(t *testing.T) {
	out := os.Getenv("TIDEGATE_OUT")
	if out == "" {
		t.Skip("TIDEGATE_OUT is not set: nothing to translate")
	}
	features.EnableAlphaGatewayAPI = true
	labels := map[string]string{}
	if err := json.Unmarshal([]byte(os.Getenv("TIDEGATE_LABELS")), &labels); err != nil {
		t.Fatal(err)
	}
	wanted, err := strconv.Atoi(os.Getenv("TIDEGATE_ROUTES"))
	if err != nil {
		t.Fatal(err)
	}
	var client kubelib.Client
	s := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		ConfigString:           read(t, "TIDEGATE_CONFIG"),
		KubernetesObjectString: read(t, "TIDEGATE_OBJECTS"),
		KubeClientModifier:     func(c kubelib.Client) { client = c },
	})
	// The server made these CRDs without the version that it then asks for; with it, the kinds are watched.
	for _, kind := range []schema.GroupVersionResource{
		gvr.GatewayClass, gvr.KubernetesGateway, gvr.HTTPRoute, gvr.GRPCRoute, gvr.ReferenceGrant,
	} {
		clienttest.MakeCRDWithAnnotations(t, client, kind, map[string]string{
			"gateway.networking.k8s.io/bundle-version": "v1.99.0",
		})
	}
	namespace := os.Getenv("TIDEGATE_NAMESPACE")
	kind, ip := model.Router, "1.1.1.1"
	if address := os.Getenv("TIDEGATE_SIDECAR"); address != "" {
		kind, ip = model.SidecarProxy, address
	}
	proxy := func() *model.Proxy {
		return s.SetupProxy(&model.Proxy{
			Type: kind, IPAddresses: []string{ip}, Labels: labels, ConfigNamespace: namespace,
			Metadata: &model.NodeMetadata{Namespace: namespace, Labels: labels},
		})
	}
	deadline := time.Now().Add(60 * time.Second)
	p := proxy()
	for routesOf(s, p) < wanted {
		if time.Now().After(deadline) {
			t.Fatalf("%d routes after a minute, wanted %d", routesOf(s, p), wanted)
		}
		time.Sleep(50 * time.Millisecond)
		p = proxy()
	}
	file, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, listener := range s.Listeners(p) {
		write(t, file, "listener", listener)
	}
	for _, route := range s.Routes(p) {
		write(t, file, "route", route)
	}
	for _, cluster := range s.Clusters(p) {
		write(t, file, "cluster", cluster)
	}
}

func routesOf(s *xds.FakeDiscoveryServer, p *model.Proxy) int {
	count := 0
	for _, configuration := range s.Routes(p) {
		for _, host := range configuration.VirtualHosts {
			if host.Name != "blackhole:80" {
				count += len(host.Routes)
			}
		}
	}
	return count
}

func read(t *testing.T, variable string) string {
	name := os.Getenv(variable)
	if name == "" {
		return ""
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func write(t *testing.T, file *os.File, kind string, message proto.Message) {
	body, err := protojson.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(file, "{%q: %s}\n", kind, body)
}
