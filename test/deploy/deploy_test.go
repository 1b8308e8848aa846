// Package deploy holds that what docs/deployment shows can be deployed: its files have the
// fields that Kubernetes, Compose and the chart know, and speak of flags that the lab has.
package deploy

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const folder = "../../docs/deployment"

// manifests decodes all of a file, and refuses fields that do not exist.
func manifests(t *testing.T, name string) (d *appsv1.Deployment, s *corev1.Service, b *policyv1.PodDisruptionBudget) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(folder, "kubernetes", name))
	require.NoError(t, err)
	for _, doc := range bytes.Split(data, []byte("\n---\n")) {
		var kind struct {
			Kind string `json:"kind"`
		}
		require.NoError(t, yaml.Unmarshal(doc, &kind))
		switch kind.Kind {
		case "Deployment":
			d = decode[appsv1.Deployment](t, doc)
		case "Service":
			s = decode[corev1.Service](t, doc)
		case "PodDisruptionBudget":
			b = decode[policyv1.PodDisruptionBudget](t, doc)
		default:
			t.Fatalf("%s: what is a %q?", name, kind.Kind)
		}
	}
	return d, s, b
}

func decode[T any](t *testing.T, doc []byte) *T {
	t.Helper()
	v := new(T)
	require.NoError(t, yaml.UnmarshalStrict(doc, v), "%s", doc)
	return v
}

func TestManifestsAreWhatKubernetesTakes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"gateway.yaml", "worker.yaml"} {
		d, s, b := manifests(t, name)
		require.NotNil(t, d)
		labels := d.Spec.Template.Labels
		selects := func(selector map[string]string) {
			t.Helper()
			require.NotEmpty(t, selector)
			for k, v := range selector {
				require.Equal(t, v, labels[k], "%s: selector %s", name, k)
			}
		}
		selects(d.Spec.Selector.MatchLabels)
		selects(b.Spec.Selector.MatchLabels)
		for _, c := range d.Spec.Template.Spec.TopologySpreadConstraints {
			selects(c.LabelSelector.MatchLabels)
		}
		if s != nil {
			selects(s.Spec.Selector)
		}

		require.Len(t, d.Spec.Template.Spec.Containers, 1)
		c := d.Spec.Template.Spec.Containers[0]
		require.Equal(t, "/readyz", c.ReadinessProbe.HTTPGet.Path)
		require.Equal(t, "/livez", c.LivenessProbe.HTTPGet.Path)
		require.GreaterOrEqual(t, c.ReadinessProbe.TimeoutSeconds, int32(3), "%s: Ready takes up to 2 s", name)
		labTakes(t, c.Args)

		grace := time.Duration(*d.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
		var hook time.Duration
		if c.Lifecycle != nil {
			hook = time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
		}
		drain, err := time.ParseDuration(flagOf(c.Args, "-drain"))
		require.NoError(t, err)
		require.GreaterOrEqual(t, grace, hook+drain+5*time.Second, "%s: the pod would be killed while it drains", name)
	}
}

// chart is what the values set of the chart. Keys that are not here are not known to exist.
type chart struct {
	Config struct {
		Cluster struct {
			Enabled  bool `json:"enabled"`
			Replicas int  `json:"replicas"`
		} `json:"cluster"`
		JetStream struct {
			Enabled   bool `json:"enabled"`
			FileStore struct {
				PVC struct {
					Size string `json:"size"`
				} `json:"pvc"`
				MaxSize string `json:"maxSize"`
			} `json:"fileStore"`
			MemoryStore struct {
				Enabled bool   `json:"enabled"`
				MaxSize string `json:"maxSize"`
			} `json:"memoryStore"`
		} `json:"jetstream"`
	} `json:"config"`
	Container struct {
		Image struct {
			Tag string `json:"tag"`
		} `json:"image"`
		Env   map[string]string `json:"env"`
		Merge corev1.Container  `json:"merge"`
	} `json:"container"`
	PodTemplate struct {
		TopologySpreadConstraints map[string]struct {
			MaxSkew           int    `json:"maxSkew"`
			WhenUnsatisfiable string `json:"whenUnsatisfiable"`
		} `json:"topologySpreadConstraints"`
	} `json:"podTemplate"`
	PromExporter struct {
		Enabled bool `json:"enabled"`
	} `json:"promExporter"`
}

func TestValuesOfTheNATSChartMakeAClusterThatStores(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(folder, "kubernetes", "nats-values.yaml"))
	require.NoError(t, err)
	v := decode[chart](t, data)
	require.True(t, v.Config.Cluster.Enabled)
	require.Equal(t, 3, v.Config.Cluster.Replicas)
	require.True(t, v.Config.JetStream.Enabled)
	require.True(t, v.Config.JetStream.MemoryStore.Enabled)
	require.Regexp(t, `^2\.1[4-9]\.`, v.Container.Image.Tag)
}

func TestComposeFileIsWhatComposeTakes(t *testing.T) {
	t.Parallel()
	options, err := cli.NewProjectOptions([]string{filepath.Join(folder, "compose.yaml")})
	require.NoError(t, err)
	project, err := options.LoadProject(t.Context())
	require.NoError(t, err)
	nats := 0
	for name, s := range project.Services {
		if strings.HasPrefix(name, "nats-") {
			nats++
			continue
		}
		labTakes(t, s.Command)
		require.FileExists(t, filepath.Join(s.Build.Context, s.Build.Dockerfile))
	}
	require.Equal(t, 3, nats)
	worker, err := project.GetService("worker")
	require.NoError(t, err)
	require.Equal(t, 3, *worker.Deploy.Replicas)
}

// labTakes checks flags against what the lab says it has.
func labTakes(t *testing.T, args []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	help := exec.CommandContext(ctx, "go", "run", "./examples/lab", "-h")
	help.Dir = "../.."
	var usage bytes.Buffer
	help.Stdout, help.Stderr = io.Discard, &usage
	require.NoError(t, help.Run(), usage.String())
	for _, a := range args {
		if name, _, _ := strings.Cut(a, "="); strings.HasPrefix(name, "-") {
			require.Contains(t, usage.String(), "\n  "+name+" ", "the lab has no flag %s", name)
		}
	}
}

func flagOf(args []string, name string) string {
	for _, a := range args {
		if value, ok := strings.CutPrefix(a, name+"="); ok {
			return value
		}
	}
	return ""
}
