// What the topics hold for a reader of committed records, told by Kafka's own client, which shares no code with ours.
// java -cp 'lib/*' ReadCommitted.java <brokers> <topic>...
// A record: R, topic, partition, offset, key, its number (the header "id"), value; a tombstone: T, and no value. At the end, for each partition: E, topic, partition, the last
// stable offset, the high watermark.
import java.io.BufferedOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

public class ReadCommitted {
  public static void main(String[] args) {
    PrintStream out = new PrintStream(new BufferedOutputStream(System.out, 1 << 16), false, StandardCharsets.UTF_8);
    try (KafkaConsumer<String, String> committed = consumer(args[0], "read_committed");
        KafkaConsumer<String, String> all = consumer(args[0], "read_uncommitted")) {
      List<TopicPartition> partitions = new ArrayList<>();
      for (int i = 1; i < args.length; i++) {
        committed.partitionsFor(args[i]).forEach(info -> partitions.add(new TopicPartition(info.topic(), info.partition())));
      }
      Map<TopicPartition, Long> highWatermarks = all.endOffsets(partitions);
      Map<TopicPartition, Long> stable = committed.endOffsets(partitions);
      committed.assign(partitions);
      committed.seekToBeginning(partitions);
      while (partitions.stream().anyMatch(partition -> committed.position(partition) < stable.get(partition))) {
        for (ConsumerRecord<String, String> record : committed.poll(Duration.ofMillis(500))) {
          if (record.offset() >= stable.get(new TopicPartition(record.topic(), record.partition()))) continue;
          String id = new String(record.headers().lastHeader("id").value(), StandardCharsets.UTF_8);
          String at = record.topic() + "\t" + record.partition() + "\t" + record.offset() + "\t" + record.key() + "\t" + id;
          out.print(record.value() == null ? "T\t" + at + "\n" : "R\t" + at + "\t" + record.value() + "\n");
        }
      }
      partitions.forEach(at -> out.print("E\t" + at.topic() + "\t" + at.partition() + "\t" + stable.get(at) + "\t" + highWatermarks.get(at) + "\n"));
    }
    out.flush();
  }

  private static KafkaConsumer<String, String> consumer(String brokers, String isolation) {
    Map<String, Object> config = new HashMap<>();
    config.put("bootstrap.servers", brokers);
    config.put("isolation.level", isolation);
    config.put("enable.auto.commit", "false");
    config.put("auto.offset.reset", "earliest");
    config.put("max.poll.records", "5000");
    return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
  }
}
