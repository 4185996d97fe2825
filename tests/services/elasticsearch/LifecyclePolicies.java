import static org.elasticsearch.rest.RestRequest.Method.GET;
import static org.elasticsearch.rest.RestRequest.Method.PUT;

import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Predicate;
import java.util.function.Supplier;
import org.elasticsearch.ResourceNotFoundException;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.cluster.ClusterState;
import org.elasticsearch.cluster.ClusterStateUpdateTask;
import org.elasticsearch.cluster.metadata.Metadata;
import org.elasticsearch.cluster.metadata.ProjectId;
import org.elasticsearch.cluster.metadata.ProjectMetadata;
import org.elasticsearch.cluster.node.DiscoveryNodes;
import org.elasticsearch.cluster.service.ClusterService;
import org.elasticsearch.common.settings.Setting;
import org.elasticsearch.core.CheckedConsumer;
import org.elasticsearch.core.TimeValue;
import org.elasticsearch.features.NodeFeature;
import org.elasticsearch.plugins.ActionPlugin;
import org.elasticsearch.plugins.Plugin;
import org.elasticsearch.rest.BaseRestHandler;
import org.elasticsearch.rest.RestChannel;
import org.elasticsearch.rest.RestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;
import org.elasticsearch.xcontent.NamedXContentRegistry;
import org.elasticsearch.xcontent.ParseField;
import org.elasticsearch.xcontent.XContentBuilder;
import org.elasticsearch.xcontent.XContentParser;
import org.elasticsearch.xpack.core.ilm.DeleteAction;
import org.elasticsearch.xpack.core.ilm.IndexLifecycleMetadata;
import org.elasticsearch.xpack.core.ilm.LifecycleAction;
import org.elasticsearch.xpack.core.ilm.LifecyclePolicy;
import org.elasticsearch.xpack.core.ilm.LifecyclePolicyMetadata;
import org.elasticsearch.xpack.core.ilm.LifecycleSettings;
import org.elasticsearch.xpack.core.ilm.LifecycleType;
import org.elasticsearch.xpack.core.ilm.RolloverAction;
import org.elasticsearch.xpack.core.ilm.SetPriorityAction;
import org.elasticsearch.xpack.core.ilm.TimeseriesLifecycleType;
import org.elasticsearch.xpack.core.ilm.action.PutLifecycleRequest;

/**
 * Takes lifecycle policies and gives them back, in a build of Elasticsearch without the module that does.
 *
 * <p>Elasticsearch's own classes parse, check and keep them. Nobody executes them.
 */
public class LifecyclePolicies extends Plugin implements ActionPlugin {
    private ClusterService cluster;

    @Override
    public Collection<?> createComponents(PluginServices services) {
        cluster = services.clusterService();
        return List.of();
    }

    @Override
    public List<Setting<?>> getSettings() {
        return List.of(
            LifecycleSettings.LIFECYCLE_NAME_SETTING,
            LifecycleSettings.LIFECYCLE_INDEXING_COMPLETE_SETTING,
            RolloverAction.LIFECYCLE_ROLLOVER_ALIAS_SETTING);
    }

    @Override
    public List<NamedXContentRegistry.Entry> getNamedXContent() {
        return List.of(
            new NamedXContentRegistry.Entry(
                Metadata.ProjectCustom.class,
                new ParseField(IndexLifecycleMetadata.TYPE),
                parser -> IndexLifecycleMetadata.PARSER.parse(parser, null)),
            new NamedXContentRegistry.Entry(
                LifecycleType.class,
                new ParseField(TimeseriesLifecycleType.TYPE),
                parser -> TimeseriesLifecycleType.INSTANCE),
            new NamedXContentRegistry.Entry(
                LifecycleAction.class, new ParseField(DeleteAction.NAME), DeleteAction::parse),
            new NamedXContentRegistry.Entry(
                LifecycleAction.class, new ParseField(SetPriorityAction.NAME), SetPriorityAction::parse));
    }

    @Override
    public Collection<RestHandler> getRestHandlers(
            RestHandlersServices services, Supplier<DiscoveryNodes> nodes, Predicate<NodeFeature> features) {
        return List.of(new Put(), new Get());
    }

    private static IndexLifecycleMetadata policies(ClusterState state) {
        ProjectMetadata project = state.metadata().getProject(ProjectId.DEFAULT);
        return project.custom(IndexLifecycleMetadata.TYPE, IndexLifecycleMetadata.EMPTY);
    }

    private static void answer(RestChannel channel, CheckedConsumer<XContentBuilder, Exception> body) {
        try {
            XContentBuilder builder = channel.newBuilder().startObject();
            body.accept(builder);
            channel.sendResponse(new RestResponse(RestStatus.OK, builder.endObject()));
        } catch (Exception error) {
            refuse(channel, error);
        }
    }

    private static void refuse(RestChannel channel, Exception error) {
        try {
            channel.sendResponse(new RestResponse(channel, error));
        } catch (Exception again) {
            throw new IllegalStateException(again);
        }
    }

    /** PUT /_ilm/policy/NAME */
    private class Put extends BaseRestHandler {
        @Override
        public String getName() {
            return "tests_put_lifecycle_policy";
        }

        @Override
        public List<Route> routes() {
            return List.of(new Route(PUT, "/_ilm/policy/{name}"));
        }

        @Override
        protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) throws java.io.IOException {
            LifecyclePolicy policy = parsed(request.param("name"), request);
            return channel -> cluster.submitUnbatchedStateUpdateTask("put-lifecycle-policy", new ClusterStateUpdateTask() {
                @Override
                public ClusterState execute(ClusterState state) {
                    return with(state, policy);
                }

                @Override
                public void onFailure(Exception error) {
                    refuse(channel, error);
                }

                @Override
                public void clusterStateProcessed(ClusterState before, ClusterState after) {
                    answer(channel, builder -> builder.field("acknowledged", true));
                }
            });
        }

        private static LifecyclePolicy parsed(String name, RestRequest request) throws java.io.IOException {
            PutLifecycleRequest.Factory factory = new PutLifecycleRequest.Factory() {
                @Override
                public PutLifecycleRequest create(LifecyclePolicy policy) {
                    return new PutLifecycleRequest(TimeValue.THIRTY_SECONDS, TimeValue.THIRTY_SECONDS, policy);
                }

                @Override
                public String getPolicyName() {
                    return name;
                }
            };
            try (XContentParser parser = request.contentParser()) {
                PutLifecycleRequest put = PutLifecycleRequest.parseRequest(factory, parser);
                if (put.validate() != null) {
                    throw put.validate();
                }
                return put.getPolicy();
            }
        }

        private static ClusterState with(ClusterState state, LifecyclePolicy policy) {
            IndexLifecycleMetadata old = policies(state);
            Map<String, LifecyclePolicyMetadata> all = new TreeMap<>(old.getPolicyMetadatas());
            LifecyclePolicyMetadata before = all.get(policy.getName());
            long version = before == null ? 1 : before.getVersion() + 1;
            all.put(
                policy.getName(),
                new LifecyclePolicyMetadata(policy, Map.of(), version, System.currentTimeMillis()));
            IndexLifecycleMetadata kept = new IndexLifecycleMetadata(all, old.getOperationMode());
            return state.copyAndUpdateProject(
                ProjectId.DEFAULT, project -> project.putCustom(IndexLifecycleMetadata.TYPE, kept));
        }
    }

    /** GET /_ilm/policy/NAME */
    private class Get extends BaseRestHandler {
        @Override
        public String getName() {
            return "tests_get_lifecycle_policy";
        }

        @Override
        public List<Route> routes() {
            return List.of(new Route(GET, "/_ilm/policy/{name}"));
        }

        @Override
        protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) {
            String name = request.param("name");
            return channel -> {
                LifecyclePolicyMetadata found = policies(cluster.state()).getPolicyMetadatas().get(name);
                if (found == null) {
                    refuse(channel, new ResourceNotFoundException("no lifecycle policy {}", name));
                    return;
                }
                answer(channel, builder -> {
                    builder.startObject(name);
                    builder.field("version", found.getVersion());
                    builder.field("policy", found.getPolicy());
                    builder.endObject();
                });
            };
        }
    }
}
