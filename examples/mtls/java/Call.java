import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Asks for predictions with the client certificate of a PKCS#12 file.
 *
 * <p>java Call.java URL ROOT.PEM CLIENT.P12 PASSWORD-FILE
 */
public class Call {
  public static void main(String[] args) throws Exception {
    char[] password = Files.readString(Path.of(args[3])).trim().toCharArray();
    KeyStore roots = KeyStore.getInstance("PKCS12");
    roots.load(null, null);
    try (var in = new FileInputStream(args[1])) {
      roots.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(in));
    }
    var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(roots);
    KeyStore own = KeyStore.getInstance("PKCS12");
    try (var in = new FileInputStream(args[2])) {
      own.load(in, password);
    }
    var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    keys.init(own, password);
    var tls = SSLContext.getInstance("TLS");
    tls.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
    var client = HttpClient.newBuilder().sslContext(tls).build();
    var request = HttpRequest.newBuilder(URI.create(args[0]))
        .header("Content-Type", "application/json")
        .POST(HttpRequest.BodyPublishers.ofString("{\"instances\": [1.0, 2.0, 5.0]}"))
        .build();
    var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
    System.out.println(answer.statusCode() + " " + answer.body());
    System.exit(0);
  }
}
