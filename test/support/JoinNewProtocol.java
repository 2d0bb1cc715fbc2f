// A member that speaks Kafka's newer group protocol (KIP-848): prints its assignment whenever that changes, or that it
// was refused. It leaves when something is written to it.
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class JoinNewProtocol {
  public static void main(String[] args) throws Exception {
    Properties properties = new Properties();
    properties.put("bootstrap.servers", args[0]);
    properties.put("group.id", args[1]);
    properties.put("group.protocol", "consumer");
    properties.put("enable.auto.commit", "false");
    properties.put("auto.offset.reset", "earliest");
    try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
      consumer.subscribe(List.of(args[2].split(",")));
      String before = null;
      while (System.in.available() == 0) {
        try {
          consumer.poll(Duration.ofMillis(100));
        } catch (KafkaException refused) {
          System.out.println("refused");
          System.exit(1);
        }
        String now = consumer.assignment().toString();
        if (!now.equals(before) && !now.equals("[]")) System.out.println("assigned " + now);
        before = now;
      }
    }
    System.out.println("left");
    System.exit(0);
  }
}
