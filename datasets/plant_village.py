"""PlantVillage: 39 classes of leaves, healthy or diseased, and background."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class PlantVillage(FewShotDataset):
    """PlantVillage: 39 classes of leaves, healthy or diseased, and background."""

    dataset_dir = "PlantVillage"
    image_dir = "Plant_leave_diseases_dataset_without_augmentation"
    task_name = "crop and disease of a leaf"
    templates = ("a photo of a plant leaf with {} disease.",)
    num_columns = 39
    renames = {
        "Apple___Apple_scab": "apple leaf with scab disease",
        "Apple___Black_rot": "apple leaf with black rot",
        "Apple___Cedar_apple_rust": "apple leaf with cedar apple rust",
        "Apple___healthy": "healthy apple leaf",
        "Background_without_leaves": "background without leaves",
        "Blueberry___healthy": "healthy blueberry leaf",
        "Cherry___healthy": "healthy cherry leaf",
        "Cherry___Powdery_mildew": "cherry leaf with powdery mildew",
        "Corn___Cercospora_leaf_spot Gray_leaf_spot": (
            "corn leaf with cercospora leaf spot or gray leaf spot"
        ),
        "Corn___Common_rust": "corn leaf with common rust",
        "Corn___healthy": "healthy corn leaf",
        "Corn___Northern_Leaf_Blight": "corn leaf with northern leaf blight",
        "Grape___Black_rot": "grape leaf with black rot",
        "Grape___Esca_(Black_Measles)": "grape leaf with black measles",
        "Grape___healthy": "healthy grape leaf",
        "Grape___Leaf_blight_(Isariopsis_Leaf_Spot)": "grape leaf with leaf blight",
        "Orange___Haunglongbing_(Citrus_greening)": "orange leaf with citrus greening disease",
        "Peach___Bacterial_spot": "peach leaf with bacterial spot",
        "Peach___healthy": "healthy peach leaf",
        "Pepper,_bell___Bacterial_spot": "pepper with bacterial spot",
        "Pepper,_bell___healthy": "healthy pepper leaf",
        "Potato___Early_blight": "potato leaf with early blight",
        "Potato___healthy": "healthy potato leaf",
        "Potato___Late_blight": "potato leaf with late blight",
        "Raspberry___healthy": "healthy raspberry leaf",
        "Soybean___healthy": "healthy soybean leaf",
        "Squash___Powdery_mildew": "squash with powdery mildew",
        "Strawberry___healthy": "healthy strawberry leaf",
        "Strawberry___Leaf_scorch": "strawberry leaf with scorch disease",
        "Tomato___Bacterial_spot": "tomato leaf with bacterial spot",
        "Tomato___Early_blight": "tomato leaf with early blight",
        "Tomato___healthy": "healthy tomato leaf",
        "Tomato___Late_blight": "tomato leaf with late blight",
        "Tomato___Leaf_Mold": "tomato leaf with mold",
        "Tomato___Septoria_leaf_spot": "tomato leaf with septoria leaf spot",
        "Tomato___Spider_mites Two-spotted_spider_mite": (
            "tomato leaf with spider mites or two-spotted spider mite"
        ),
        "Tomato___Target_Spot": "tomato leaf with target spot",
        "Tomato___Tomato_mosaic_virus": "tomato leaf with tomato mosaic virus",
        "Tomato___Tomato_Yellow_Leaf_Curl_Virus": "tomato leaf with tomato yellow leaf curl virus",
    }
