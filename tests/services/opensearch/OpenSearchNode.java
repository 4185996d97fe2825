import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One OpenSearch node in this virtual machine: OpenSearchNode FOLDER PORT TRANSPORT_PORT [KEY=VALUE ...]. */
public class OpenSearchNode {
    public static void main(String[] words) throws Exception {
        OpenSearchRunner node = new OpenSearchRunner();
        node.onBuild((number, settings) -> {
            settings.put("http.port", words[1]);
            settings.put("transport.port", words[2]);
            settings.put("network.host", "127.0.0.1");
            settings.put("discovery.type", "single-node");
            settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
            settings.putList("node.roles", "cluster_manager", "data");
            for (int i = 3; i < words.length; i++) {
                String[] pair = words[i].split("=", 2);
                settings.put(pair[0], pair[1]);
            }
        }).build(OpenSearchRunner.newConfigs().basePath(words[0]).clusterName("tests").numOfNode(1).useLogger());
        // Whoever starts it asks until it is ready: a deadline of its own, of half a minute, ends it on a slow machine.
        Thread.currentThread().join();
    }
}
