// A quick idempotent producer of JSON events of 244 bytes, by Kafka's own client: fills a topic at the speed of the
// broker, or goes on at a steady rate until its standard input ends.
// java -cp 'lib/*' ProduceEvents.java <brokers> <topic> <partitions> <records> <records a second; 0: no limit>
// Prints "began" with the first acknowledgement, and at its end how many records of each partition were acknowledged,
// as a JSON array.
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class ProduceEvents {
  private static final int BYTES = 244;
  private static final String[] KINDS = {"view", "click", "order", "login"};
  private static final String PAD = "x".repeat(BYTES);

  public static void main(String[] args) throws Exception {
    String topic = args[1];
    int partitions = Integer.parseInt(args[2]);
    long records = Long.parseLong(args[3]);
    long perSecond = Long.parseLong(args[4]);
    // Neighbours stay together, so that the client's batches get full; at a steady rate every partition is served often.
    int run = perSecond == 0 ? 500 : 20;
    AtomicBoolean stopping = new AtomicBoolean();
    if (perSecond > 0) stopWithStandardInput(stopping);
    long[] acknowledged = new long[partitions];
    AtomicBoolean began = new AtomicBoolean();
    AtomicReference<Exception> failure = new AtomicReference<>();
    try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config(args[0], perSecond), new ByteArraySerializer(), new ByteArraySerializer())) {
      long startNs = System.nanoTime();
      for (long id = 0; id < records && !stopping.get() && failure.get() == null; id++) {
        if (perSecond > 0) waitUntil(startNs + id * 1_000_000_000L / perSecond);
        int partition = (int) (id / run % partitions);
        producer.send(new ProducerRecord<>(topic, partition, null, event(id)), (metadata, thrown) -> {
          if (thrown != null) failure.compareAndSet(null, thrown);
          else acknowledged[metadata.partition()]++; // callbacks come from one thread
          if (thrown == null && began.compareAndSet(false, true)) System.out.println("began");
        });
      }
    }
    if (failure.get() != null) throw failure.get();
    System.out.println(Arrays.toString(acknowledged));
    System.exit(0);
  }

  private static Map<String, Object> config(String brokers, long perSecond) {
    Map<String, Object> config = new HashMap<>();
    config.put("bootstrap.servers", brokers);
    config.put("enable.idempotence", "true");
    config.put("acks", "all");
    config.put("batch.size", perSecond == 0 ? "262144" : "16384");
    config.put("linger.ms", perSecond == 0 ? "20" : "5");
    config.put("buffer.memory", "134217728");
    return config;
  }

  private static byte[] event(long id) {
    StringBuilder text = new StringBuilder(BYTES);
    text.append("{\"id\":").append(id).append(",\"at\":").append(1_795_000_000_000L + id).append(",\"user\":").append(id * 2654435761L % 1_000_003L);
    text.append(",\"kind\":\"").append(KINDS[(int) (id % 4)]).append("\",\"agent\":\"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\"");
    text.append(",\"amount\":").append(id % 10_000 / 100).append('.').append(id % 100 / 10).append(id % 10);
    text.append(",\"url\":\"https://shop.example/items/").append(id % 9973).append("?ref=mail");
    text.append(PAD, 0, Math.max(0, BYTES - 2 - text.length())).append("\"}");
    return text.toString().getBytes(StandardCharsets.US_ASCII);
  }

  private static void waitUntil(long atNs) throws InterruptedException {
    for (long leftNs = atNs - System.nanoTime(); leftNs > 0; leftNs = atNs - System.nanoTime()) Thread.sleep(Math.max(1, leftNs / 1_000_000));
  }

  private static void stopWithStandardInput(AtomicBoolean stopping) {
    Thread thread = new Thread(() -> {
      try {
        while (System.in.read() != -1) continue;
      } catch (IOException thrown) {
        // The same as its end.
      }
      stopping.set(true);
    });
    thread.setDaemon(true);
    thread.start();
  }
}
